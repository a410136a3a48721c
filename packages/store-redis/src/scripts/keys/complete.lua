-- Settles as done. ARGV[1] is an array (msgpack) with, for each request: a claim id, a retention, the keys (an array), and
-- their results (an array with nil where there is none; '' where no key has one). Answers for each a code for each key,
-- '' where all were completed now:
--   c completed   a completed already   l lease lost
local ids, keys_of, all_keys = {}, {}, {}
for at = 1, #arguments, 4 do
  local keys = cmsgpack.unpack(arguments[at + 2])
  ids[#ids + 1] = arguments[at]
  keys_of[#keys_of + 1] = keys
  if #arguments == 4 then
    all_keys = keys
  else
    for index = 1, #keys do all_keys[#all_keys + 1] = keys[index] end
  end
end
read(ids, all_keys)

-- Only keys that are not ours can be completed already.
local others
for index, id in ipairs(ids) do
  local claim = claim_of(id)
  local mark = claim and claim.mark
  for _, key in ipairs(keys_of[index]) do
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
    local millis = tonumber(retention)
    expiries[retention] = encode_expiry(now + millis)
    fields_by_retention[retention] = fields_of_generation(coming, now + millis, millis)
  end
  return expiries[retention], fields_by_retention[retention]
end

local completed_any, completed_already = false, false
local answers = {}
for request, id in ipairs(ids) do
  local at = 4 * request - 3
  local keys, results_text = keys_of[request], arguments[at + 3]
  local results = results_text ~= '' and cmsgpack.unpack(results_text)
  local claim = claim_of(id)
  local mark = claim and claim.mark
  local codes
  local count = 0
  for index = 1, #keys do
    local key = keys[index]
    local text = held[key]
    if mark and text and (text == mark or is_held_by(key, claim)) then
      local value, fields = expiry_after(arguments[at + 1])
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
  answers[request] = codes and table.concat(codes) or ''
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
