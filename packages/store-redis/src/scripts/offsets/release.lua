-- Gives back undone: for each request a claim id and ranges, or no ranges for all. Answers the number of requests.
local requests = {}
local all_ranges = {}
local claims = {}
for at = 1, #ARGV, 2 do
  local id = ARGV[at]
  if claims[id] == nil then
    claims[id] = read_claim(id)
    if claims[id] then all_ranges[#all_ranges + 1] = held_by(claims[id]) end
  end
  requests[#requests + 1] = { id = id, all = ARGV[at + 1] == '', flat = decode_ranges(ARGV[at + 1]) }
end
if #all_ranges == 0 then return #requests end
load_stream(all_ranges)

local changed_claims = {}
local waited = false
for _, request in ipairs(requests) do
  local claim = claims[request.id]
  if claim then
    if claim.waited == 1 then
      waited = true
      claim.waited = 0
    end
    local held = request.all and {} or subtract(held_by(claim), request.flat)
    local remaining = -1
    if not is_open_ended(held) then
      local _, missing = partition(held)
      remaining = size_of(missing)
    end
    if remaining == 0 then
      claims[request.id] = false
      changed_claims[request.id] = false
    else
      hold(claim, held)
      claim.remaining = remaining
      changed_claims[request.id] = claim
    end
  end
end

write_though_full(claims_key)
save_stream()
save_claims(changed_claims)
if waited then wake(base, base) end
return #requests
