-- Prolongs leases: for each request a claim id and a lease. Answers until when each lasts now, 0 where it is lost.
load_stream({})
local claims, changed_claims = {}, {}
local answers = {}
for at = 1, #ARGV, 2 do
  local id, lease = ARGV[at], tonumber(ARGV[at + 1])
  if claims[id] == nil then claims[id] = read_claim(id) end
  local claim = claims[id]
  if claim and not is_forgotten(claim) then
    claim.till = math.max(claim.till, now + lease)
    changed_claims[id] = claim
    answers[#answers + 1] = claim.till
  else
    answers[#answers + 1] = 0
  end
end
write_though_full(claims_key)
save_stream()
save_claims(changed_claims)
return answers
