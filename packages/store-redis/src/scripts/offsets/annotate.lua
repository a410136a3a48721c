-- Notes ARGV[2] of the stream, by the claim ARGV[1]. Answers 1, or 0 where that is lost.
check_format(redis.call('HGET', base, 'v'))
local claim = read_claim(ARGV[1])
if not claim or is_forgotten(claim) then return 0 end
write_though_full(claims_key)
redis.call('HSET', base, 'n', ARGV[2], 'm', now)
return 1
