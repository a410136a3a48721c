-- Claims one range, from the watermark on or above it, where nothing is completed near it and nobody else holds anything: that
-- is what most requests are. They are answered at the beginning of the script, in a straight line: to define functions takes
-- longer than all the rest. Any others are left as they are to what follows: see claim.lua.
if #ARGV == 4 then
  local from, to = bounds_of(ARGV[4])
  local first, second = pages_of(from, to)
  if first then
    local found = redis.call('HMGET', KEYS[1], 'v', 'w', 't', 'f', first, second)
    local watermark, token = tonumber(found[2]), tonumber(found[3])
    local is_free = found[1] == FORMAT and watermark and token and from >= watermark
      and not found[4] and not found[5] and not found[6]
    if is_free and #redis.call('HGETALL', KEYS[2]) == 0 then
      local lease = tonumber(ARGV[3])
      local till = now + lease
      token = math.max(token + 1, micros)
      redis.call('HSET', KEYS[1], 't', string.format('%.0f', token), 'm', now)
      redis.call('HSET', KEYS[2], ARGV[1], cmsgpack.pack(token, till, lease, to - from, 0, ARGV[2], ARGV[4], ''))
      return { { token, till } }
    end
  end
end
