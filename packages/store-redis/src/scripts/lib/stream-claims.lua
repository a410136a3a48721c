-- The claims of a stream. `remaining` is how many offsets of what it holds are not completed, -1 for an open-ended
-- claim. `waited` is 1 when somebody was told that it holds what he asked for.
local LEASES_KEPT = 10

local function decode_claim(id, text)
  local claim = { id = id }
  claim.token, claim.till, claim.lease, claim.remaining, claim.waited, claim.owner, claim.requested, claim.held_text =
    cmsgpack.unpack(text)
  return claim
end

local function held_by(claim)
  if not claim.held then
    claim.held = decode_ranges(claim.held_text == '' and claim.requested or claim.held_text)
  end
  return claim.held
end

local function encode_claim(claim)
  return cmsgpack.pack(claim.token, claim.till, claim.lease, claim.remaining, claim.waited, claim.owner,
    claim.requested, claim.held_text)
end

local function hold(claim, flat)
  claim.held = flat
  local text = encode_ranges(flat)
  claim.held_text = text == claim.requested and '' or text
end

local function is_forgotten(claim)
  return now >= claim.till + LEASES_KEPT * claim.lease
end

local function read_claim(id)
  local text = redis.call('HGET', claims_key, id)
  return text and decode_claim(id, text)
end

-- Writes these claims, by their id; false: gone.
local function save_claims(changed_claims)
  local set, gone = {}, {}
  for id, claim in pairs(changed_claims) do
    if claim then
      set[#set + 1] = id
      set[#set + 1] = encode_claim(claim)
    else
      gone[#gone + 1] = id
    end
  end
  call_in_slices('HSET', claims_key, set)
  call_in_slices('HDEL', claims_key, gone)
end

-- Operators supersede all claims.
local function supersede()
  local waited = redis.call('EXISTS', claims_key) == 1
  epoch = epoch + 1
  changed.e = true
  save_stream()
  redis.call('DEL', claims_key)
  if waited then wake(base, base) end
end
