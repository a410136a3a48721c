-- Settles as done: for each request a claim id, a retention, the keys and their results (JSON; '' where none has one) and
-- the keys' hashes. Answers for each a code for each key, '' where all were completed now:
--   c completed   a completed already   l lease lost
local requests = {}
local all_keys = {}
for at = 1, #ARGV, 5 do
  local request = {
    id = ARGV[at],
    retention = tonumber(ARGV[at + 1]),
    keys = cjson.decode(ARGV[at + 2]),
    results = ARGV[at + 3] == '' and {} or cjson.decode(ARGV[at + 3]),
    hashes = ARGV[at + 4]
  }
  requests[#requests + 1] = request
  for _, key in ipairs(request.keys) do all_keys[#all_keys + 1] = key end
end
read_held(all_keys)
for _, request in ipairs(requests) do request.numbers = buckets_of(request.hashes) end

local touched = {}
local latest, longest = 0, 0
local answers = {}
for answer, request in ipairs(requests) do
  local claim = claim_of(request.id)
  local till = now + request.retention
  local expiry = encode_digits(till, 7)
  local codes = {}
  local all = true
  for index, key in ipairs(request.keys) do
    local number = request.numbers[index]
    if claim and is_held_by(key, claim) then
      local result = request.results[index]
      add_entry(number, key, sub(request.hashes, 5 * index - 4, 5 * index), expiry, till, held_print(key),
        result ~= cjson.null and result)
      free(key)
      let_go(claim)
      touched[#touched + 1] = number
      codes[index] = 'c'
      latest = math.max(latest, till)
      longest = math.max(longest, request.retention)
    else
      all = false
      codes[index] = completed(number, key) and 'a' or 'l'
    end
  end
  answers[answer] = all and '' or table.concat(codes)
end

if #touched > 0 then
  latest = math.max(latest, grow_or_shrink(touched))
  -- all that is held is given up first: a completion needs memory, and must not be refused for want of it
  save_held()
  save_buckets(latest, floor(longest / 8))
  save_claims()
  save_meta()
  wake_waiting()
end
return answers
