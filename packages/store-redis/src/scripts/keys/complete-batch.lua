-- Settles a request of many keys, without results, if all are held as they were granted: see complete.lua.
local function complete_batch(id, retention, keys_text, results_text)
  local keys = cmsgpack.unpack(keys_text)
  if results_text ~= '' or not keys[1] or #keys > MOST_AT_ONCE then return nil end
  local field = '\254' .. id
  local found = redis.call('HMGET', base, STATE, field, unpack(keys))
  read_state(found[1])
  local claim_text = found[2]
  if not claim_text or generations[1] and generations[1] <= now then return nil end
  local count, index, owner, claimed_text, prints_text, first, _, forgotten_at = cmsgpack.unpack(claim_text)
  if now >= forgotten_at then return nil end
  local mark = field .. stamp_of(first)
  for at = 3, #found do
    if found[at] ~= mark then return nil end
  end
  local till = now + retention
  local coming = {}
  local fields = fields_of_generation(coming, till, retention)
  local value = encode_expiry(till)
  for at = 1, #keys do
    fields[2 * at - 1], fields[2 * at] = keys[at], value
  end
  -- when memory is full, what is given up comes first: it takes none, and then all is accepted
  local gone = redis.call('HDEL', base, unpack(keys))
  if gone == count then
    redis.call('HDEL', base, field)
  else
    local head = cmsgpack.pack(count - gone, index, owner, claimed_text, prints_text)
    redis.call('HSET', base, field, head .. sub(claim_text, -TAIL))
  end
  if state_changed then redis.call('HSET', base, STATE, pack_state()) end
  for ends, each in pairs(coming) do save_done(each, ends) end
  if gone == #keys then return 1 end
  -- of keys that occur twice the first one is the one that completed
  local seen, codes = {}, {}
  for at, key in ipairs(keys) do
    codes[at] = seen[key] and 'a' or 'c'
    seen[key] = true
  end
  return { table.concat(codes) }
end

local completed = #arguments == 4 and not are_singles and complete_batch(unpack(arguments))
if completed then return completed end
