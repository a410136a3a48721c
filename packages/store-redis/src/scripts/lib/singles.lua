-- Requests of one key each, which most are: those of `once` and of locks, alone or gathered. Where nothing else is to be
-- said than yes, they are answered here, with few commands and tables; what is otherwise is left as it is to the script
-- for any requests, which follows.

-- The key of an array (msgpack) of one, as Packer.ts writes it; nil for any other.
local function only_key(text)
  if byte(text) ~= 145 then return nil end
  return sub(text, byte(text, 2) == 219 and 7 or 3)
end

-- {state, claim, key, claim, key, ...}, fields of base; nil where a request is of several keys, or one occurs twice.
-- A request takes `width` arguments, from its claim id on; `keys_at` is where its keys are.
local function fields_of_singles(arguments, width, keys_at)
  local fields, seen = { STATE }, {}
  local count = 1
  for at = 1, #arguments, width do
    local claim, key = '\254' .. arguments[at], only_key(arguments[at + keys_at])
    if not key or seen[claim] or seen[key] then return nil end
    seen[claim], seen[key] = true, true
    fields[count + 1], fields[count + 2] = claim, key
    count = count + 2
  end
  return fields
end

-- Reads them. Gives the fields of these claims and keys where each claim holds just its key, without a fingerprint, and
-- knows who is to be woken then; else nil.
local function held_singles(fields)
  local found = redis.call('HMGET', base, unpack(fields))
  read_state(found[1])
  local held_fields, waited_for = {}, {}
  for at = 2, #fields, 2 do
    local claim, text = found[at], found[at + 1]
    if not claim or not text then return nil end
    local claim_token, till, lease, count = cmsgpack.unpack(claim)
    if count ~= 1 or now >= till + LEASES_KEPT * lease then return nil end
    local mark = sub(fields[at], 2) .. '\255' .. digits(claim_token)
    if text ~= mark then
      if text ~= mark .. '\251' then return nil end
      waited_for[#waited_for + 1] = fields[at + 1]
    end
    held_fields[at - 1], held_fields[at] = fields[at], fields[at + 1]
  end
  woken = waited_for
  return held_fields
end
