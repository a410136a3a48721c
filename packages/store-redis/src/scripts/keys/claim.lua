-- Claims keys: for each request a claim id, an owner, a lease, the keys and their fingerprints (JSON; '' where none has
-- one) and the keys' hashes. Answers for each: 0 where the id is in use for other keys; else {codes, token, until, more},
-- a code for each key, '' where all were granted:
--   g granted   c completed   r completed, with a result (in `more`)
--   h held by another (in `more`: until, owner)   m mismatch (in `more`: the fingerprint that is stored)
local requests = {}
local all_keys, all_numbers = {}, {}
for at = 1, #ARGV, 6 do
  local request = {
    id = ARGV[at],
    owner = ARGV[at + 1],
    lease = tonumber(ARGV[at + 2]),
    keys_text = ARGV[at + 3],
    prints_text = ARGV[at + 4],
    keys = cjson.decode(ARGV[at + 3]),
    prints = ARGV[at + 4] == '' and {} or cjson.decode(ARGV[at + 4]),
    hashes = ARGV[at + 5]
  }
  requests[#requests + 1] = request
  for _, key in ipairs(request.keys) do all_keys[#all_keys + 1] = key end
end
read_held(all_keys)
for _, request in ipairs(requests) do request.numbers = buckets_of(request.hashes) end

local function print_of(request, index)
  local print = request.prints[index]
  return print ~= cjson.null and print or nil
end

local function held_answer(request, index, more, stored, till, owner)
  local print = print_of(request, index)
  if print and stored and stored ~= print then
    more[#more + 1] = stored
    return 'm'
  end
  more[#more + 1] = till
  more[#more + 1] = owner
  return 'h'
end

-- Why a key can't be had; nil where it can.
local function refusal(request, index, more)
  local key, number = request.keys[index], request.numbers[index]
  local till, rest = completed(number, key)
  if till then
    local print = print_of(request, index)
    local stored = print and print_in(rest)
    if stored and stored ~= print then
      more[#more + 1] = stored
      return 'm'
    end
    local result = result_in(key, rest)
    if not result then return 'c' end
    more[#more + 1] = result
    return 'r'
  end
  local holder = holder_of(key)
  if not holder or now >= holder.till then return nil, holder end
  if byte(held[key], -1) ~= 251 then set_held(key, held[key] .. '\251') end
  return held_answer(request, index, more, held_print(key), holder.till, holder.owner)
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
      code = refusal(request, index, more)
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
  change_claim(claim)
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
  claim.mark = claim.id .. '\255' .. digits(claim.token)
  claims[claim.id] = claim
  local codes, more = {}, {}
  local has_prints = request.prints_text ~= ''
  for index, key in ipairs(request.keys) do
    local code, over = refusal(request, index, more)
    if not code then
      if over then let_go(over) end
      local print = has_prints and print_of(request, index)
      set_held(key, print and claim.mark .. '\252' .. print or claim.mark)
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
  changed_meta.t = token
  change_claim(claim)
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

if not granted_any then write_though_full(held_key) end
save_held()
save_claims()
save_meta()
return answers
