-- Gives back undone. ARGV[1] is an array (msgpack) with, for each request: a claim id and keys (an array), or '' for all; or,
-- for requests of one named key each, {{STATE, claim, key, claim, key, ...}}. Answers 1.
local ids, keys_of = {}, {}
if are_singles then
  local fields = arguments[1]
  for at = 2, #fields, 2 do ids[#ids + 1], keys_of[#ids + 1] = sub(fields[at], 2), { fields[at + 1] } end
else
  for at = 1, #arguments, 2 do
    local keys_text = arguments[at + 1]
    ids[#ids + 1], keys_of[#ids + 1] = arguments[at], keys_text ~= '' and cmsgpack.unpack(keys_text)
  end
end
read(ids, {})
local requests = {}
local all_keys = {}
for index, id in ipairs(ids) do
  local claim = claim_of(id)
  if claim then
    local keys = keys_of[index] or cmsgpack.unpack(claim.keys)
    requests[#requests + 1] = { claim = claim, keys = keys }
    for _, key in ipairs(keys) do all_keys[#all_keys + 1] = key end
  end
end
if all_keys[1] then
  read({}, all_keys)
  for _, request in ipairs(requests) do
    for _, key in ipairs(request.keys) do
      if is_held_by(key, request.claim) then
        free(key)
        let_go(request.claim, 1)
      end
    end
  end
  save()
  wake_waiting()
end
return 1
