-- Prolongs leases. ARGV[1] is an array (msgpack) with, for each request, a claim id and a lease. Answers until when each lasts now, 0 where it is lost.
local ids, answers = {}, {}
for at = 1, #arguments, 2 do ids[#ids + 1] = arguments[at] end
read(ids, {})
for at = 1, #arguments, 2 do
  local claim = claim_of(arguments[at])
  if claim then
    claim.till = math.max(claim.till, now + arguments[at + 1])
    changed_claims[claim.id] = claim
    answers[#answers + 1] = claim.till
  else
    answers[#answers + 1] = 0
  end
end
save()
return answers
