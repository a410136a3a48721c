-- Claims keys. ARGV[1] is an array (msgpack) with, for each request: a claim id, an owner, a lease, the keys (an array), and
-- their fingerprints (an array with nil where there is none; '' where no key has one). Answers for each: 0 where the id is
-- in use for other keys; else {codes, token, until, more}, a code for each key, '' where all were granted:
--   g granted   c completed   r completed, with a result (in `more`)
--   h held by another (in `more`: until, owner)   m mismatch (in `more`: the fingerprint that is stored)
local arguments = cmsgpack.unpack(ARGV[1])
local requests, ids = {}, {}
local all_keys = {}
for at = 1, #arguments, 5 do
  local keys = cmsgpack.unpack(arguments[at + 3])
  local prints_text = arguments[at + 4]
  requests[#requests + 1] = {
    id = arguments[at],
    owner = arguments[at + 1],
    lease = tonumber(arguments[at + 2]),
    keys_text = arguments[at + 3],
    prints_text = prints_text,
    keys = keys,
    prints = prints_text ~= '' and cmsgpack.unpack(prints_text) or {}
  }
  ids[#ids + 1] = arguments[at]
  if #arguments == 5 then
    all_keys = keys
  else
    for _, key in ipairs(keys) do all_keys[#all_keys + 1] = key end
  end
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

local function answer_again(request, claim)
  local codes, more, seen = {}, {}, {}
  local all = true
  for index, key in ipairs(request.keys) do
    local code
    if not seen[key] and is_held_by(key, claim) then
      code = 'g'
    else
      all = false
      -- what this claim did not get, or gave back, it never gets later: its token may be too old by now
      code = refusal(key, request.prints[index], more)
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
  return { all and '' or table.concat(codes), claim.token, claim.till, more }
end

local granted_any = false

local function answer_new(request)
  local claim = {
    id = request.id,
    owner = request.owner,
    token = math.max(token + 1, micros),
    till = now + request.lease,
    lease = request.lease,
    keys = request.keys_text,
    prints = request.prints_text,
    count = 0
  }
  claim.mark = mark_of(claim)
  claims[claim.id] = claim
  local mark, prints = claim.mark, request.prints
  local codes, more = {}, {}
  for index, key in ipairs(request.keys) do
    local print = prints[index]
    local code, over
    if done[key] or held[key] then code, over = refusal(key, print, more) end
    if not code then
      if over then let_go(over, 1) end
      set_held(key, print and mark .. '\252' .. print or mark)
      claim.count = claim.count + 1
      code = 'g'
    end
    codes[index] = code
  end
  if claim.count == 0 then
    claims[claim.id] = false
    return { table.concat(codes), 0, 0, more }
  end
  granted_any = true
  token = claim.token
  changed_claims[claim.id] = claim
  return { claim.count == #codes and '' or table.concat(codes), claim.token, claim.till, more }
end

local answers = {}
for index, request in ipairs(requests) do
  local known = claim_of(request.id)
  if not known then
    answers[index] = answer_new(request)
  elseif known.keys == request.keys_text and known.prints == request.prints_text then
    answers[index] = answer_again(request, known)
  else
    answers[index] = 0
  end
end

if granted_any then
  state_changed = true
  if token % 16 == 0 then sweep() end
end
local over = take_forgotten()
save(granted_any)
unlink(over)
return answers
