-- Gives back undone: for each request a claim id and keys (JSON), or '' for all. Answers the number of requests.
local requests = {}
local all_keys = {}
for at = 1, #ARGV, 2 do
  local claim = claim_of(ARGV[at])
  if claim then
    local keys = cjson.decode(ARGV[at + 1] == '' and claim.keys or ARGV[at + 1])
    requests[#requests + 1] = { claim = claim, keys = keys }
    for _, key in ipairs(keys) do all_keys[#all_keys + 1] = key end
  end
end
read_held(all_keys)
for _, request in ipairs(requests) do
  for _, key in ipairs(request.keys) do
    if is_held_by(key, request.claim) then
      free(key)
      let_go(request.claim)
    end
  end
end
write_though_full(held_key)
save_held()
save_claims()
save_meta()
wake_waiting()
return #ARGV / 2
