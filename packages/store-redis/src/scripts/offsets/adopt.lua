-- Takes over the progress of another stream, given as the fields of its hash. Answers 0 where there is progress here.
local found = redis.call('HMGET', base, 'v', 'o')
check_format(found[1])
if found[2] then return 0 end
local fields = {}
for at = 1, #ARGV do fields[at] = ARGV[at] end
fields[#fields + 1] = 'm'
fields[#fields + 1] = now
call_in_slices('HSET', base, fields)
return 1
