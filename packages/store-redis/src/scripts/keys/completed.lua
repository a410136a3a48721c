-- A page of a generation: ARGV[1] is its end, ARGV[2] a cursor of HSCAN. Answers {next cursor, keys (in threes of key, until,
-- result or nil)}.
local found = redis.call('HSCAN', generation_key(tonumber(ARGV[1])), ARGV[2], 'COUNT', 500)
local keys = {}
for at = 1, #found[2], 2 do
  local key, value = found[2][at], found[2][at + 1]
  if key ~= '' and now < expiry_in(value) then
    for _, part in ipairs({ key, expiry_in(value), result_in(value) or false }) do keys[#keys + 1] = part end
  end
end
return { found[1], keys }
