-- Claims ranges: for each request a claim id, an owner, a lease and ranges. Answers for each: 0 where the id is in use
-- for other ranges; {token, until} where all is granted; else {token or 0, until, granted, completed, held}, `held` in
-- threes of until, owner and ranges.
local requests = {}
local all_ranges = {}
for at = 1, #ARGV, 4 do
  local flat = decode_ranges(ARGV[at + 3])
  requests[#requests + 1] =
    { id = ARGV[at], owner = ARGV[at + 1], lease = tonumber(ARGV[at + 2]), text = ARGV[at + 3], flat = flat }
  all_ranges[#all_ranges + 1] = flat
end
load_stream(all_ranges)

local claims = {}
local changed_claims = {}
local listed = redis.call('HGETALL', claims_key)
for at = 1, #listed, 2 do
  local claim = decode_claim(listed[at], listed[at + 1])
  if is_forgotten(claim) then changed_claims[claim.id] = false else claims[claim.id] = claim end
end

local function held_by_others(flat, id)
  local held = {}
  for _, claim in pairs(claims) do
    if claim.id ~= id and now < claim.till and overlaps(flat, held_by(claim)) then
      held[#held + 1] = claim.till
      held[#held + 1] = claim.owner
      held[#held + 1] = intersect(flat, held_by(claim))
      if claim.waited == 0 then
        claim.waited = 1
        changed_claims[claim.id] = changed_claims[claim.id] or claim
      end
    end
  end
  return held
end

-- Ranges travel as text: a client may round integers near the highest offset.
local function answer_of(token, till, granted, present, held)
  for at = 3, #held, 3 do held[at] = encode_ranges(held[at]) end
  return { token, till, encode_ranges(granted), encode_ranges(present), held }
end

local function answer_again(claim)
  local present, missing = partition(decode_ranges(claim.requested))
  local granted = intersect(missing, held_by(claim))
  -- written again, so that WAIT waits for it
  changed_claims[claim.id] = claim
  return answer_of(claim.token, claim.till, granted, present, held_by_others(subtract(missing, granted), claim.id))
end

local function answer_new(request)
  local present, missing = partition(request.flat)
  if #missing == 0 then return answer_of(0, 0, {}, present, {}) end
  local held = held_by_others(missing)
  local granted = missing
  if #held > 0 then
    if is_open_ended(request.flat) then return answer_of(0, 0, {}, present, held) end
    for at = 3, #held, 3 do granted = subtract(granted, held[at]) end
    if #granted == 0 then return answer_of(0, 0, {}, present, held) end
  end
  for id, claim in pairs(claims) do
    -- those that are over: what live ones hold is not in it
    if overlaps(granted, held_by(claim)) then
      claims[id] = nil
      changed_claims[id] = false
    end
  end
  begin_at(granted[1])
  token = math.max((token or token_floor()) + 1, micros)
  changed.t = true
  local claim = {
    id = request.id,
    owner = request.owner,
    token = token,
    till = now + request.lease,
    lease = request.lease,
    waited = 0,
    remaining = is_open_ended(granted) and -1 or size_of(granted),
    requested = request.text
  }
  hold(claim, granted)
  claims[request.id] = claim
  changed_claims[request.id] = claim
  if #present == 0 and #held == 0 then return { claim.token, claim.till } end
  return answer_of(claim.token, claim.till, granted, present, held)
end

local answers = {}
for index, request in ipairs(requests) do
  local known = claims[request.id]
  if not known then
    answers[index] = answer_new(request)
  elseif known.requested == request.text then
    answers[index] = answer_again(known)
  else
    answers[index] = 0
  end
end

-- nothing is granted, so that nothing is refused for want of memory
if not changed.t then write_though_full(claims_key) end
save_stream()
save_claims(changed_claims)
return answers
