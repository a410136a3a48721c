-- What is told of the record at ARGV[1], and its bytes.
return redis.call('HMGET', records, ARGV[1], 'd' .. ARGV[1])
