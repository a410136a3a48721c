-- Grants requests of one key each, if all keys are free and all claims are new: see claim.lua.
local arguments = cmsgpack.unpack(ARGV[1])

-- Whether none of these keys is completed; each generation must be there, and none over.
local function are_new(keys)
  for _, ends in ipairs(generations) do
    if ends <= now then return false end
    local found = redis.call('HMGET', generation_key(ends), unpack(keys))
    if not found[1] then return false end
    for at = 2, #keys do
      if found[at] then return false end
    end
  end
  return true
end

local function grant_singles()
  local fields = fields_of_singles(arguments, 5, 3)
  if not fields then return nil end
  local found = redis.call('HMGET', base, unpack(fields))
  local keys = { '' }
  for at = 2, #fields, 2 do
    if found[at] or found[at + 1] or arguments[(at / 2) * 5] ~= '' then return nil end
    keys[at / 2 + 1] = fields[at + 1]
  end
  read_state(found[1])
  if not are_new(keys) then return nil end
  local first = math.max(token + 1, micros)
  local last = first + #keys - 2
  -- then others are swept too
  if last % 16 == 0 then return nil end
  local set, tokens = {}, {}
  for at = 1, #arguments, 5 do
    local id, lease = arguments[at], tonumber(arguments[at + 2])
    local request = (at - 1) / 5
    local claim_token = first + request
    tokens[request + 1] = claim_token
    local to = 4 * request
    set[to + 1] = '\254' .. id
    set[to + 2] = cmsgpack.pack(claim_token, now + lease, lease, 1, arguments[at + 1], arguments[at + 3], '')
    set[to + 3] = fields[2 * request + 3]
    set[to + 4] = id .. '\255' .. digits(claim_token)
  end
  token = last
  set[#set + 1] = STATE
  set[#set + 1] = pack_state()
  redis.call('HSET', base, unpack(set))
  return { now, tokens }
end

local granted = grant_singles()
if granted then return granted end
