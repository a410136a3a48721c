-- Settles as done. ARGV[1] is an array (msgpack) with, for each request: a claim id, a retention, the keys (an array), and
-- their results (an array with nil where there is none; '' where no key has one); or, for requests of one key each,
-- {{STATE, claim, key, claim, key, ...}, retention}. Answers 1 where all were completed now; else for each request a code for
-- each key, '' where all were completed now:
--   c completed   a completed already   l lease lost
local requests, ids, all_keys = {}, {}, {}

local function add_request(id, retention, keys, results)
  ids[#ids + 1] = id
  requests[#requests + 1] = { id = id, retention = retention, keys = keys, results = results }
  for _, key in ipairs(keys) do all_keys[#all_keys + 1] = key end
end

if are_singles then
  local fields, retention = unpack(arguments)
  for at = 2, #fields, 2 do add_request(sub(fields[at], 2), retention, { fields[at + 1] }) end
else
  for at = 1, #arguments, 4 do
    local id, retention, keys_text, results_text = unpack(arguments, at, at + 3)
    add_request(id, retention, cmsgpack.unpack(keys_text), results_text ~= '' and cmsgpack.unpack(results_text))
  end
end
read(ids, all_keys)

-- Only keys that are not ours can be completed already.
local others
for _, request in ipairs(requests) do
  local claim = claim_of(request.id)
  local mark = claim and claim.mark
  for _, key in ipairs(request.keys) do
    if not mark or held[key] ~= mark and not is_held_by(key, claim) then
      others = others or {}
      others[#others + 1] = key
    end
  end
end
if others then read_done(others) end

-- By the end of a generation: what comes into it.
local coming = {}
-- By retention: the expiry, and what comes into its generation.
local expiries, fields_by_retention = {}, {}

local function expiry_after(retention)
  if not expiries[retention] then
    expiries[retention] = encode_expiry(now + retention)
    fields_by_retention[retention] = fields_of_generation(coming, now + retention, retention)
  end
  return expiries[retention], fields_by_retention[retention]
end

local completed_any, completed_already = false, false
local answers = {}
for at, request in ipairs(requests) do
  local keys, results = request.keys, request.results
  local claim = claim_of(request.id)
  local mark = claim and claim.mark
  local codes
  local count = 0
  for index = 1, #keys do
    local key = keys[index]
    local text = held[key]
    if mark and text and (text == mark or is_held_by(key, claim)) then
      local value, fields = expiry_after(request.retention)
      local print = text ~= mark and held_print(key)
      if print then value = value .. '\252' .. print end
      local result = results and results[index]
      if result then value = value .. '\253' .. result end
      fields[#fields + 1] = key
      fields[#fields + 1] = value
      done[key] = value
      free(key)
      count = count + 1
    else
      codes = codes or {}
      codes[index] = done[key] and 'a' or 'l'
      if done[key] then completed_already = true end
    end
  end
  if count > 0 then
    let_go(claim, count)
    completed_any = true
  end
  if codes then
    for index = 1, #keys do codes[index] = codes[index] or 'c' end
  end
  answers[at] = codes and table.concat(codes) or ''
end

if completed_any then
  local over = take_forgotten()
  save()
  for ends, fields in pairs(coming) do save_done(fields, ends) end
  unlink(over)
  wake_waiting()
elseif completed_already then
  -- something is written, so that WAIT waits for it: newer servers wait only for what was written on the same connection
  state_changed = true
  save()
end
return answers
