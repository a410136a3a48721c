-- Claims keys. ARGV[1] is an array (msgpack) with, for each request: a claim id, what the claim begins with (see state.lua)
-- and a lease; or, for requests of one key each, {{STATE, claim, key, claim, key, ...}, {what each claim begins with}, lease}.
-- Answers {now, the first token}, where all was granted and the tokens follow each other; else {now, answers}, for each
-- request: 0 where the id is in use for other keys; the token where all were granted, until now + lease; else {codes, token,
-- until, more}, a code for each key:
--   g granted   c completed   r completed, with a result (in `more`)
--   h held by another (in `more`: until, owner)   m mismatch (in `more`: the fingerprint that is stored)
local requests, ids, all_keys = {}, {}, {}

local function add_request(id, head, lease)
  local _, _, owner, keys_text, prints_text = cmsgpack.unpack(head)
  local keys = cmsgpack.unpack(keys_text)
  ids[#ids + 1] = id
  requests[#requests + 1] =
    { id = id, owner = owner, lease = lease, keys = keys, keys_text = keys_text, prints_text = prints_text }
  for _, key in ipairs(keys) do all_keys[#all_keys + 1] = key end
end

if are_singles then
  local fields, heads, lease = unpack(arguments)
  for index, head in ipairs(heads) do add_request(sub(fields[2 * index], 2), head, lease) end
else
  for at = 1, #arguments, 3 do add_request(unpack(arguments, at, at + 2)) end
end
read(ids, all_keys)
read_done(all_keys)

-- Why a key can't be had; nil where it can, with the claim whose lease on it is over.
local function refusal(key, print, more)
  local value = done[key]
  if value then
    local stored = print and print_in(value)
    if stored and stored ~= print then
      more[#more + 1] = stored
      return 'm'
    end
    local result = result_in(value)
    if not result then return 'c' end
    more[#more + 1] = result
    return 'r'
  end
  local holder = holder_of(key)
  if not holder or now >= holder.till then return nil, holder end
  if byte(held[key], -1) ~= 251 then set_held(key, held[key] .. '\251') end
  local stored = print and held_print(key)
  if stored and stored ~= print then
    more[#more + 1] = stored
    return 'm'
  end
  more[#more + 1] = holder.till
  more[#more + 1] = holder.owner
  return 'h'
end

local function answer_again(claim, keys, prints)
  local codes, more, seen = {}, {}, {}
  for index, key in ipairs(keys) do
    local code
    if not seen[key] and is_held_by(key, claim) then
      code = 'g'
    else
      -- what this claim did not get, or gave back, it never gets later: its token may be too old by now
      code = refusal(key, prints[index], more)
      if not code then
        more[#more + 1] = now
        more[#more + 1] = claim.owner
        code = 'h'
      end
    end
    seen[key] = true
    codes[index] = code
  end
  -- written again, so that WAIT waits for it
  changed_claims[claim.id] = claim
  return { table.concat(codes), claim.token, claim.till, more }
end

local granted_any = false

local function answer_new(request, prints)
  local id, keys = request.id, request.keys
  local claim = {
    id = id, owner = request.owner, till = now + request.lease, kept = LEASES_KEPT * request.lease,
    keys = request.keys_text, prints = request.prints_text, index = 0, count = 0
  }
  claim.token = math.max(token + 1, micros)
  claim.first = claim.token
  local mark = mark_of(claim)
  claim.mark = mark
  claims[id] = claim
  local codes, more
  local count = 0
  for index = 1, #keys do
    local key = keys[index]
    local print = prints and prints[index]
    local code, over
    if done[key] or held[key] then
      more = more or {}
      code, over = refusal(key, print, more)
    end
    if code then
      codes = codes or {}
      codes[index] = code
    else
      if over then let_go(over, 1) end
      set_held(key, print and mark .. '\252' .. print or mark)
      count = count + 1
    end
  end
  claim.count = count
  if count == 0 then
    claims[id] = false
    return { codes and table.concat(codes) or '', 0, 0, more or {} }
  end
  granted_any = true
  token = claim.token
  changed_claims[id] = claim
  if not codes then return token end
  for index = 1, #keys do codes[index] = codes[index] or 'g' end
  return { table.concat(codes), token, claim.till, more }
end

local answers = {}
for index, request in ipairs(requests) do
  local prints = request.prints_text ~= '' and cmsgpack.unpack(request.prints_text)
  local known = claim_of(request.id)
  if not known then
    answers[index] = answer_new(request, prints)
  elseif known.keys == request.keys_text and known.prints == request.prints_text then
    answers[index] = answer_again(known, request.keys, prints or {})
  else
    answers[index] = 0
  end
end

if granted_any then
  state_changed = true
  if token % SWEPT_EACH == 0 then sweep() end
end
local over = take_forgotten()
save(granted_any)
unlink(over)
return { now, answers }
