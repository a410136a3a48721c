-- Grants a request of many keys, if all are free and the claim is new: see claim.lua.
local function grant_batch(id, head, lease)
  local field = '\254' .. id
  local _, _, _, keys_text, prints_text = cmsgpack.unpack(head)
  local keys = cmsgpack.unpack(keys_text)
  if prints_text ~= '' or not keys[1] or #keys > MOST_AT_ONCE then return nil end
  local found = redis.call('HMGET', base, STATE, field, unpack(keys))
  for at = 2, #found do
    if found[at] then return nil end
  end
  read_state(found[1])
  for _, ends in ipairs(generations) do
    local known = ends > now and redis.call('HMGET', generation_key(ends), '', unpack(keys))
    -- none is over, and each is there
    if not known or not known[1] then return nil end
    for at = 2, #known do
      if known[at] then return nil end
    end
  end
  token = math.max(token + 1, micros)
  if token % SWEPT_EACH == 0 then return nil end
  local mark = field .. stamp_of(token)
  local set =
    { STATE, pack_state(), field, head .. cmsgpack.pack(token, now + lease, now + lease + LEASES_KEPT * lease) }
  for index = 1, #keys do
    set[2 * index + 3], set[2 * index + 4] = keys[index], mark
  end
  local added = redis.call('HSET', base, unpack(set))
  if added == #keys + (found[1] and 1 or 2) then return { now, token } end
  -- one occurs twice
  redis.call('HDEL', base, field, unpack(keys))
end

local granted = #arguments == 3 and not are_singles and grant_batch(unpack(arguments))
if granted then return granted end
