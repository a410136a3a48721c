-- An operator's act: keys (ARGV[1], JSON; their hashes: ARGV[2]) are as if they had never been seen. Answers how many
-- were known.
local keys = cjson.decode(ARGV[1])
read_held(keys)
local numbers = buckets_of(ARGV[2])
local known = 0
for index, key in ipairs(keys) do
  local holder = holder_of(key)
  if completed(numbers[index], key) or holder then known = known + 1 end
  remove_entry(numbers[index], key)
  if held[key] then free(key) end
  if holder then let_go(holder) end
end
write_though_full(held_key)
save_held()
save_buckets(0, 0)
save_claims()
save_meta()
wake_waiting()
return known
