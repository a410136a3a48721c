-- Gives back undone. ARGV[1] is an array (msgpack) with, for each request: a claim id and keys (an array), or '' for all.
-- Answers the number of requests.
local ids = {}
for at = 1, #arguments, 2 do ids[#ids + 1] = arguments[at] end
read(ids, {})
local requests = {}
local all_keys = {}
for at = 1, #arguments, 2 do
  local claim = claim_of(arguments[at])
  if claim then
    local keys = cmsgpack.unpack(arguments[at + 1] == '' and claim.keys or arguments[at + 1])
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
return #arguments / 2
