-- The idempotency keys of one namespace (or of one shard of it, on Cluster).
--
-- base:m        a hash: format (v), last token (t), level (l) and split pointer (s) of the buckets, when base:h ends (x)
-- base:h        a hash: each held key, with the claim that holds it
-- base:c:<id>   a claim, which ends by itself when it is over for 10 leases
-- base:d:<n>    a hash: up to 4,096 buckets of completed keys by number, and when it ends (x)
-- base:r:<key>  a result that is too long for a bucket
--
-- A bucket is one string, and an entry in it is
--   \255 key \254 hash (5) expiry (7) [\252 fingerprint] [\253 result | \251]
-- where the hash and the expiry (milliseconds) are digits of seven bits, the highest first, and \251 says that the
-- result is in a key of its own. None of these bytes occurs in UTF-8, so that a plain search finds a key or nothing.
-- Buckets grow and shrink by linear hashing: Litwin, "Linear Hashing: A New Tool for File and Table Addressing" (1980).
local base = KEYS[1]
local meta_key = base .. ':m'
local held_key = base .. ':h'
local LEASES_KEPT = 10
local BUCKETS_IN_CHUNK = 4096
local floor, find, sub, byte, char, match = math.floor, string.find, string.sub, string.byte, string.char, string.match

local found_meta = redis.call('HMGET', meta_key, 'v', 't', 'l', 's', 'x')
check_format(found_meta[1])
local token = tonumber(found_meta[2]) or 0
local has_buckets = found_meta[3] and true
local level, split = tonumber(found_meta[3]) or 0, tonumber(found_meta[4]) or 0
local held_until = tonumber(found_meta[5]) or 0
local changed_meta = {}

local function save_meta()
  local set = found_meta[1] and {} or { 'v', FORMAT }
  for field, value in pairs(changed_meta) do
    set[#set + 1] = field
    set[#set + 1] = value
  end
  if #set > 0 and next(changed_meta) then redis.call('HSET', meta_key, unpack(set)) end
end

-- Claims -------------------------------------------------------------------------------------------------------------

-- By id: a claim, or false where there is none; nil: not read yet.
local claims = {}
local changed_claims = {}

local function forgotten_at(claim)
  return claim.till + LEASES_KEPT * claim.lease
end

local function claim_of(id)
  local claim = claims[id]
  if claim == nil then
    local text = redis.call('GET', base .. ':c:' .. id)
    claim = false
    if text then
      claim = { id = id }
      claim.token, claim.till, claim.lease, claim.count, claim.owner, claim.keys, claim.prints = cmsgpack.unpack(text)
      claim.mark = id .. '\255' .. digits(claim.token)
      if now >= forgotten_at(claim) then claim = false end
    end
    claims[id] = claim
  end
  return claim
end

local function change_claim(claim)
  changed_claims[claim.id] = claim
end

local function drop_claim(claim)
  claims[claim.id] = false
  changed_claims[claim.id] = false
end

-- One key less for this claim.
local function let_go(claim)
  claim.count = claim.count - 1
  if claim.count == 0 then drop_claim(claim) else change_claim(claim) end
end

-- Held keys ----------------------------------------------------------------------------------------------------------

-- By key: mark of the claim [\252 fingerprint] [\251 when somebody waits]; nil: not held.
local held = {}
local changed_held = {}
local woken = {}

local function read_held(keys)
  for at = 1, #keys, 4000 do
    local last = math.min(at + 3999, #keys)
    local found = redis.call('HMGET', held_key, unpack(keys, at, last))
    for index = at, last do held[keys[index]] = found[index - at + 1] or nil end
  end
end

local function set_held(key, text)
  held[key] = text
  changed_held[key] = true
end

-- A key is no longer held: completed, or given back.
local function free(key)
  if byte(held[key], -1) == 251 then woken[#woken + 1] = key end
  set_held(key, nil)
end

local function is_held_by(key, claim)
  local text = held[key]
  if not text then return false end
  local mark = claim.mark
  return text == mark or (sub(text, 1, #mark) == mark and byte(text, #mark + 1) > 250)
end

-- The claim that holds a key, also when its lease is over; what is left of one that is gone holds nothing.
local function holder_of(key)
  local text = held[key]
  if not text then return nil end
  local claim = claim_of(match(text, '^([^\255]*)'))
  return claim and is_held_by(key, claim) and claim or nil
end

local function held_print(key)
  return match(held[key], '\252([^\251]*)')
end

local function save_claims()
  for id, claim in pairs(changed_claims) do
    if claim then
      redis.call('SET', base .. ':c:' .. id,
        cmsgpack.pack(claim.token, claim.till, claim.lease, claim.count, claim.owner, claim.keys, claim.prints),
        'PXAT', digits(forgotten_at(claim)))
      -- the hash of held keys outlasts the claims, so that nothing of an idle namespace remains
      if forgotten_at(claim) > held_until then
        held_until = forgotten_at(claim) + LEASES_KEPT * claim.lease
        redis.call('PEXPIREAT', held_key, digits(held_until))
        changed_meta.x = held_until
      end
    else
      redis.call('DEL', base .. ':c:' .. id)
    end
  end
end

local function save_held()
  local set, gone = {}, {}
  for key in pairs(changed_held) do
    local text = held[key]
    if text then
      set[#set + 1] = key
      set[#set + 1] = text
    else
      gone[#gone + 1] = key
    end
  end
  call_in_slices('HSET', held_key, set)
  call_in_slices('HDEL', held_key, gone)
end

local function wake_waiting()
  for _, key in ipairs(woken) do wake(base, base .. key) end
end
