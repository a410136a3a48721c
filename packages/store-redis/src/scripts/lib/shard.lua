-- The idempotency keys of one namespace.
--
-- base:m          a hash: format (v), last token (t), when base:h ends (x), the ends of the generations (g)
-- base:h          a hash: each held key, with the claim that holds it
-- base:c:<id>     a claim, which ends by itself when it has been over for 10 leases
-- base:d:<end>    a generation: a hash of completed keys, all of which are forgotten by `end`
--
-- A uuid comes as \255 and its 16 bytes, any other key as its UTF-8, where \255 does not occur.
local base = KEYS[1]
local meta_key = base .. ':m'
local held_key = base .. ':h'
local LEASES_KEPT = 10
local sub, byte, char, match = string.sub, string.byte, string.char, string.match

local found_meta = redis.call('HMGET', meta_key, 'v', 't', 'x', 'g')
check_format(found_meta[1])
local token = tonumber(found_meta[2]) or 0
local held_until = tonumber(found_meta[3]) or 0
-- Ascending.
local generations = found_meta[4] and cmsgpack.unpack(found_meta[4]) or {}
local changed_meta = {}

local function save_meta()
  if #changed_meta == 0 then return end
  if not found_meta[1] then
    changed_meta[#changed_meta + 1] = 'v'
    changed_meta[#changed_meta + 1] = FORMAT
  end
  redis.call('HSET', meta_key, unpack(changed_meta))
end

local function set_meta(field, value)
  changed_meta[#changed_meta + 1] = field
  changed_meta[#changed_meta + 1] = value
end

-- Redis keeps a hash of few short fields as a list, which it searches from its beginning: with this field it does not.
local NO_LIST = ''
local NO_LIST_VALUE = '-----------------------------------------------------------------'

-- Claims -------------------------------------------------------------------------------------------------------------

-- By id: a claim, or false where there is none; nil: not read yet.
local claims = {}
local changed_claims = {}

local function forgotten_at(claim)
  return claim.till + LEASES_KEPT * claim.lease
end

local function mark_of(claim)
  return claim.id .. '\255' .. digits(claim.token)
end

local function claim_of(id)
  local claim = claims[id]
  if claim == nil then
    local text = redis.call('GET', base .. ':c:' .. id)
    claim = false
    if text then
      claim = { id = id }
      claim.token, claim.till, claim.lease, claim.count, claim.owner, claim.keys, claim.prints = cmsgpack.unpack(text)
      claim.mark = mark_of(claim)
      if now >= forgotten_at(claim) then claim = false end
    end
    claims[id] = claim
  end
  return claim
end

local function change_claim(claim)
  changed_claims[claim.id] = claim
end

-- Some keys less for this claim.
local function let_go(claim, count)
  claim.count = claim.count - count
  if claim.count == 0 then
    claims[claim.id] = false
    changed_claims[claim.id] = false
  else
    changed_claims[claim.id] = claim
  end
end

local function save_claims()
  local last = held_until
  for id, claim in pairs(changed_claims) do
    if claim then
      local till = forgotten_at(claim)
      redis.call('SET', base .. ':c:' .. id,
        cmsgpack.pack(claim.token, claim.till, claim.lease, claim.count, claim.owner, claim.keys, claim.prints),
        'PXAT', digits(till))
      if till > last then last = till + LEASES_KEPT * claim.lease end
    else
      redis.call('DEL', base .. ':c:' .. id)
    end
  end
  -- the hash of held keys outlasts the claims, so that nothing of an idle namespace remains
  if last > held_until then
    redis.call('PEXPIREAT', held_key, digits(last))
    set_meta('x', last)
  end
end

-- Held keys ----------------------------------------------------------------------------------------------------------

-- By key: mark of the claim [\252 fingerprint] [\251 when somebody waits]; nil: not held.
local held = {}
local is_list
local set_fields = {}
local gone_fields = {}
local woken = {}

local function read_held(keys)
  for at = 1, #keys, 4000 do
    local last = math.min(at + 3999, #keys)
    local found = redis.call('HMGET', held_key, NO_LIST, unpack(keys, at, last))
    is_list = not found[1]
    for index = at, last do held[keys[index]] = found[index - at + 2] or nil end
  end
end

local function set_held(key, text)
  held[key] = text
  set_fields[#set_fields + 1] = key
  set_fields[#set_fields + 1] = text
end

-- A key is no longer held: completed, or given back. (What a script gives up, it does not hold again.)
local function free(key)
  if byte(held[key], -1) == 251 then woken[#woken + 1] = key end
  held[key] = nil
  gone_fields[#gone_fields + 1] = key
end

local function is_held_by(key, claim)
  local text, mark = held[key], claim.mark
  if text == mark then return true end
  return text and sub(text, 1, #mark) == mark and byte(text, #mark + 1) > 250
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

local function save_held()
  if set_fields[1] then
    if is_list then redis.call('HSET', held_key, NO_LIST, NO_LIST_VALUE) end
    call_in_slices('HSET', held_key, set_fields)
  end
  call_in_slices('HDEL', held_key, gone_fields)
end

local function wake_waiting()
  for _, key in ipairs(woken) do wake(base, base .. key) end
end
