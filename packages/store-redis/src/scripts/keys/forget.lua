-- An operator's act: keys, ARGV[1], an array (msgpack), are as if they had never been seen. Answers how many were known.
local keys = arguments
read({}, keys)
read_done(keys)
local known = 0
for _, key in ipairs(keys) do
  local holder = holder_of(key)
  if done[key] or holder then known = known + 1 end
  done[key] = nil
  if held[key] then free(key) end
  if holder then let_go(holder, 1) end
end
save()
for _, ends in ipairs(generations) do call_in_slices('HDEL', generation_key(ends), keys) end
wake_waiting()
return known
