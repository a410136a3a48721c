-- Keeps records: ARGV has the offset, what is told (JSON), and the bytes of each. Answers for each 1 where it is kept now,
-- 2 where the same was there, 3 where another one was, which stays.
local answers = {}
for at = 1, #ARGV, 3 do
  local offset, told, content = ARGV[at], ARGV[at + 1], ARGV[at + 2]
  local found = redis.call('HGET', records, 'd' .. offset)
  if found then
    answers[#answers + 1] = found == content and 2 or 3
  else
    -- first what may still be refused: a key of another type, memory that is full
    redis.call('ZADD', index, offset, offset)
    told = '{"parkedAt":' .. digits(now) .. ',' .. string.sub(told, 2)
    redis.call('HSET', records, 'v', FORMAT, offset, told, 'd' .. offset, content)
    answers[#answers + 1] = 1
  end
end
return answers
