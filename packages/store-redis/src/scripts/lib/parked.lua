-- The parked records of one stream.
--
-- records   a hash: v is the format; each offset has what is told of its record, as JSON, and under d and the offset the
--           record's bytes
-- index     a sorted set of the offsets
local records, index = KEYS[1], KEYS[2]
check_format(redis.call('HGET', records, 'v'))
