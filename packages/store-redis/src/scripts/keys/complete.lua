-- Settles as done. ARGV[1] is an array (msgpack) with, for each request: a claim id, a retention, the keys (an array), and
-- their results (an array with nil where there is none; '' where no key has one). Answers for each a code for each key,
-- '' where all were completed now:
--   c completed   a completed already   l lease lost
local arguments = cmsgpack.unpack(ARGV[1])
local requests, ids = {}, {}
local all_keys = {}
for at = 1, #arguments, 4 do
  local keys = cmsgpack.unpack(arguments[at + 2])
  local results_text = arguments[at + 3]
  requests[#requests + 1] = {
    id = arguments[at],
    retention = tonumber(arguments[at + 1]),
    keys = keys,
    results = results_text ~= '' and cmsgpack.unpack(results_text) or {}
  }
  ids[#ids + 1] = arguments[at]
  if #arguments == 4 then
    all_keys = keys
  else
    for _, key in ipairs(keys) do all_keys[#all_keys + 1] = key end
  end
end
read(ids, all_keys)

-- Only keys that are not ours can be completed already.
local others = {}
for _, request in ipairs(requests) do
  local claim = claim_of(request.id)
  for _, key in ipairs(request.keys) do
    if not claim or not is_held_by(key, claim) then others[#others + 1] = key end
  end
end
if others[1] then read_done(others) end

-- By the end of a generation: what comes into it.
local coming = {}
local completed_any, completed_already = false, false
local answers = {}
for answer, request in ipairs(requests) do
  local claim = claim_of(request.id)
  local mark = claim and claim.mark
  local expiry, fields
  local results = request.results
  local codes = {}
  local count = 0
  for index, key in ipairs(request.keys) do
    local text = held[key]
    if mark and text and (text == mark or is_held_by(key, claim)) then
      if not expiry then
        local till = now + request.retention
        expiry = encode_expiry(till)
        fields = fields_of_generation(coming, till, request.retention)
      end
      local value, result = expiry, results[index]
      local print = text ~= mark and held_print(key)
      if print then value = value .. '\252' .. print end
      if result then value = value .. '\253' .. result end
      fields[#fields + 1] = key
      fields[#fields + 1] = value
      done[key] = value
      free(key)
      count = count + 1
      codes[index] = 'c'
    else
      codes[index] = done[key] and 'a' or 'l'
      if done[key] then completed_already = true end
    end
  end
  if count > 0 then
    let_go(claim, count)
    completed_any = true
  end
  answers[answer] = count == #codes and '' or table.concat(codes)
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
