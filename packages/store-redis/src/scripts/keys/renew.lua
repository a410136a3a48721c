-- Prolongs leases. ARGV[1] is an array (msgpack) with, for each request, a claim id and a lease. Answers until when each lasts now, 0 where it is lost.
local answers = {}
local arguments = cmsgpack.unpack(ARGV[1])
for at = 1, #arguments, 2 do
  local claim = claim_of(arguments[at])
  if claim then
    claim.till = math.max(claim.till, now + tonumber(arguments[at + 1]))
    change_claim(claim)
    answers[#answers + 1] = claim.till
  else
    answers[#answers + 1] = 0
  end
end
write_though_full(held_key)
save_claims()
save_meta()
return answers
