-- The format of what is stored under a prefix, and in how many shards its keys are: ARGV[1] and ARGV[2] where nothing is.
local found = redis.call('HMGET', KEYS[1], 'v', 'shards')
if found[1] then return { found[1], found[2] or '1' } end
redis.call('HSET', KEYS[1], 'v', ARGV[1], 'shards', ARGV[2])
return { ARGV[1], ARGV[2] }
