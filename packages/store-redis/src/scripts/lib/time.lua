-- The store's clock (invariant 8). The numbers are doubles, which hold both exactly.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local micros = time[1] * 1000000 + time[2]
