-- Claims and held keys of a namespace, for any requests.

-- Claims -------------------------------------------------------------------------------------------------------------

-- By id: a claim, or false where there is none; nil: not read yet.
local claims = {}
local changed_claims = {}

local function mark_of(claim)
  return '\254' .. claim.id .. stamp_of(claim.first)
end

local function put_claim(id, text)
  local claim = false
  if text then
    claim = { id = id }
    local forgotten_at
    claim.count, claim.index, claim.owner, claim.keys, claim.prints, claim.first, claim.till, forgotten_at =
      cmsgpack.unpack(text)
    claim.token = claim.first + claim.index
    claim.kept = forgotten_at - claim.till
    claim.mark = mark_of(claim)
    if now >= forgotten_at then claim = false end
  end
  claims[id] = claim
  return claim
end

local function claim_of(id)
  local claim = claims[id]
  if claim ~= nil then return claim end
  return put_claim(id, redis.call('HGET', base, '\254' .. id))
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

-- Held keys ----------------------------------------------------------------------------------------------------------

-- By key: what is stored of it; nil: not held.
local held = {}
local set_fields = {}
local gone_fields = {}

-- Reads the state, these claims and who holds these keys.
local function read(ids, keys)
  local fields = { STATE }
  for at, id in ipairs(ids) do fields[1 + at] = '\254' .. id end
  local before = #fields
  for at, key in ipairs(keys) do fields[before + at] = key end
  for from = 1, #fields, 4000 do
    local last = math.min(from + 3999, #fields)
    local found = redis.call('HMGET', base, unpack(fields, from, last))
    for at = from, last do
      local value = found[at - from + 1]
      if at > before then
        held[fields[at]] = value or nil
      elseif at > 1 then
        put_claim(ids[at - 1], value)
      else
        read_state(value)
      end
    end
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
  local claim = claim_of(match(text, '^\254([^\255]*)'))
  return claim and is_held_by(key, claim) and claim or nil
end

local function held_print(key)
  return match(held[key], '\252([^\251]*)')
end

-- Writes what has changed of the state, claims and held keys. When memory is full, the first write decides: a grant comes
-- first and is refused as a whole; else what is given up comes first, which takes no memory, and all is accepted.
local function save(grants)
  for id, claim in pairs(changed_claims) do
    if claim then
      set_fields[#set_fields + 1] = '\254' .. id
      set_fields[#set_fields + 1] =
        cmsgpack.pack(claim.count, claim.index, claim.owner, claim.keys, claim.prints, claim.first, claim.till,
          claim.till + claim.kept)
    else
      gone_fields[#gone_fields + 1] = '\254' .. id
    end
  end
  if state_changed then
    set_fields[#set_fields + 1] = STATE
    set_fields[#set_fields + 1] = pack_state()
  end
  if not grants then
    if gone_fields[1] then call_in_slices('HDEL', base, gone_fields) else write_though_full(base) end
  end
  call_in_slices('HSET', base, set_fields)
  if grants then call_in_slices('HDEL', base, gone_fields) end
end
