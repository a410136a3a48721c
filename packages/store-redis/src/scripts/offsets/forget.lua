-- An operator's act: all that is known of the stream is removed. Answers whether there was any. Its tokens go on from
-- where they were, should it come again: by the clock, or, where the last one is ahead of that, until it no longer is.
local found = redis.call('HMGET', base, 'v', 't')
check_format(found[1])
local token = tonumber(found[2]) or 0
local known = redis.call('DEL', base, claims_key)
if token >= micros then
  redis.call('SET', base .. ':t', digits(token), 'PX', math.ceil((token - micros) / 1000) + 1000)
end
if known > 0 then wake(base, base) end
return known > 0 and 1 or 0
