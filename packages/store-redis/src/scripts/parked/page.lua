-- What is told of the first ARGV[2] records from the offset ARGV[1] on: offsets, and the JSON of each.
local offsets = redis.call('ZRANGEBYSCORE', index, ARGV[1], '+inf', 'LIMIT', 0, ARGV[2])
if #offsets == 0 then return { offsets, {} } end
return { offsets, redis.call('HMGET', records, unpack(offsets)) }
