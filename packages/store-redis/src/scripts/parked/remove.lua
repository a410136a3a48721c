-- Removes the records at these offsets. Answers how many there were.
local count = 0
for _, offset in ipairs(ARGV) do
  if redis.call('ZREM', index, offset) == 1 then
    redis.call('HDEL', records, offset, 'd' .. offset)
    count = count + 1
  end
end
if count > 0 and redis.call('EXISTS', index) == 0 then redis.call('DEL', records) end
return count
