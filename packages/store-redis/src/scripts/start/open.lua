-- What all who share a prefix must agree on: the format (v), and the secret of the keys' hashes, which the first one makes
-- (ARGV[2]). ARGV[1] is the format that is to be written where there is none.
local found = redis.call('HMGET', KEYS[1], 'v', 'secret')
if found[1] and found[2] then return found end
redis.call('HSET', KEYS[1], 'v', ARGV[1], 'secret', ARGV[2])
return { ARGV[1], ARGV[2] }
