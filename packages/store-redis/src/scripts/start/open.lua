-- The format of what is stored under a prefix: ARGV[1] where nothing is.
local found = redis.call('HGET', KEYS[1], 'v')
if found then return found end
redis.call('HSET', KEYS[1], 'v', ARGV[1])
return ARGV[1]
