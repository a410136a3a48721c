-- Settles as done: for each request a claim id and ranges. Answers for each: 1 where all was completed now; else
-- {completed, already completed, lease lost}.
local requests = {}
local all_ranges, ids, seen = {}, {}, {}
for at = 1, #ARGV, 2 do
  local flat = decode_ranges(ARGV[at + 1])
  requests[#requests + 1] = { id = ARGV[at], flat = flat }
  all_ranges[#all_ranges + 1] = flat
  if not seen[ARGV[at]] then
    seen[ARGV[at]] = true
    ids[#ids + 1] = ARGV[at]
  end
end
load_stream(all_ranges)
local claims = {}
for at, text in ipairs(redis.call('HMGET', claims_key, unpack(ids))) do
  local claim = text and decode_claim(ids[at], text)
  if claim and not is_forgotten(claim) then claims[claim.id] = claim end
end

local changed_claims = {}
local waited = false
local answers = {}
for index, request in ipairs(requests) do
  local present, missing = partition(request.flat)
  local claim = claims[request.id]
  local inside = claim and intersect(missing, held_by(claim)) or {}
  if #inside > 0 then
    add_completed(inside)
    if claim.remaining >= 0 then
      claim.remaining = claim.remaining - size_of(inside)
      if claim.waited == 1 then
        waited = true
        claim.waited = 0
      end
      if claim.remaining == 0 then
        claims[claim.id] = nil
        changed_claims[claim.id] = false
      else
        changed_claims[claim.id] = claim
      end
    end
  end
  if #present == 0 and size_of(inside) == size_of(missing) then
    answers[index] = 1
  else
    answers[index] = { encode_ranges(inside), encode_ranges(present), encode_ranges(subtract(missing, inside)) }
  end
end

write_though_full(claims_key)
save_stream()
save_claims(changed_claims)
if waited then wake(base, base) end
return answers
