-- The buckets of completed keys; see shard.lua for their form.
-- How long a bucket should be, in bytes: some 20 uuids.
local BUCKET_BYTES = 1024
-- A longer result is kept in a key of its own: a bucket is written whole whenever one of its keys is completed.
local LONGEST_RESULT = 128

-- By number: the text of a bucket; nil: not read yet.
local buckets = {}
local changed_buckets = {}
-- By number: until when a chunk lasts.
local chunk_ends = {}
local changed_results = {}

local function decode_digits(text, at, count)
  local number = 0
  for index = at, at + count - 1 do number = number * 128 + byte(text, index) end
  return number
end

local function encode_digits(number, count)
  local text = {}
  for index = count, 1, -1 do
    text[index] = char(number % 128)
    number = floor(number / 128)
  end
  return table.concat(text)
end

local function bucket_of(hash)
  local count = 2 ^ level
  local number = hash % count
  if number < split then number = hash % (2 * count) end
  return number
end

local function chunk_key(chunk)
  return base .. ':d:' .. chunk
end

-- Reads these buckets, one command for each chunk.
local function read_buckets(numbers)
  local wanted = {}
  for _, number in ipairs(numbers) do
    if buckets[number] == nil then
      buckets[number] = ''
      local chunk = floor(number / BUCKETS_IN_CHUNK)
      local list = wanted[chunk]
      if not list then
        list = { 'x' }
        wanted[chunk] = list
      end
      list[#list + 1] = number
    end
  end
  for chunk, list in pairs(wanted) do
    local found = not has_buckets and {} or redis.call('HMGET', chunk_key(chunk), unpack(list))
    chunk_ends[chunk] = tonumber(found[1]) or 0
    for at = 2, #list do buckets[list[at]] = found[at] or '' end
  end
end

-- The buckets of keys by their hashes (5 digits each), which are read.
local function buckets_of(hashes)
  local numbers = {}
  for at = 1, #hashes, 5 do
    local a, b, c, d, e = byte(hashes, at, at + 4)
    numbers[#numbers + 1] = bucket_of((((a * 128 + b) * 128 + c) * 128 + d) * 128 + e)
  end
  read_buckets(numbers)
  return numbers
end

-- Where the entry of a key begins in a bucket, and where what follows its key; nil where there is none.
local function find_entry(number, key)
  local text = buckets[number]
  if not text or text == '' then return nil end
  local at, last = find(text, '\255' .. key .. '\254', 1, true)
  if at then return at, last + 1 end
  return nil
end

-- When a completed key is forgotten, and what else is known of it; nil where it is not (or no longer) completed.
local function completed(number, key)
  local at, from = find_entry(number, key)
  if not at then return nil end
  local till = decode_digits(buckets[number], from + 5, 7)
  if now >= till then return nil end
  local text = buckets[number]
  local past = find(text, '\255', from, true) or #text + 1
  return till, sub(text, from + 12, past - 1)
end

local function print_in(rest)
  return match(rest, '^\252([^\253\251]*)')
end

local function result_in(key, rest)
  local at = find(rest, '\253', 1, true)
  if at then return sub(rest, at + 1) end
  if byte(rest, -1) == 251 then return redis.call('GET', base .. ':r:' .. key) end
  return false
end

local function set_bucket(number, text)
  buckets[number] = text
  changed_buckets[number] = true
end

local function remove_entry(number, key)
  local at, from = find_entry(number, key)
  if not at then return false end
  local text = buckets[number]
  local past = find(text, '\255', from, true) or #text + 1
  if byte(text, past - 1) == 251 then changed_results[key] = false end
  set_bucket(number, sub(text, 1, at - 1) .. sub(text, past))
  return true
end

-- Completed entries stand in the order in which they came, so that most often the first are the first to go.
local function without_expired_front(text)
  local at = 1
  while true do
    local from = find(text, '\254', at, true)
    if not from or now < decode_digits(text, from + 6, 7) then break end
    at = find(text, '\255', from, true) or #text + 1
    if at > #text then break end
  end
  return at == 1 and text or sub(text, at)
end

-- The same for all, where keys of short and of long retention stand side by side.
local function without_expired(text)
  local kept = {}
  for key, rest in string.gmatch(text, '\255([^\254]*)\254([^\255]*)') do
    if now < decode_digits(rest, 6, 7) then kept[#kept + 1] = '\255' .. key .. '\254' .. rest end
  end
  return table.concat(kept)
end

local function add_entry(number, key, hash, expiry, till, print, result)
  remove_entry(number, key)
  local text = buckets[number]
  if #text > BUCKET_BYTES / 2 then text = without_expired_front(text) end
  if #text > 3 * BUCKET_BYTES then text = without_expired(text) end
  local rest = print and '\252' .. print or ''
  if result then
    if #result > LONGEST_RESULT then
      changed_results[key] = { result, till }
      rest = rest .. '\251'
    else
      rest = rest .. '\253' .. result
    end
  end
  set_bucket(number, text .. '\255' .. key .. '\254' .. hash .. expiry .. rest)
end

-- A chunk ends with its last entry. The end is set a little later, so that it is not moved with every completion.
local function outlast(chunk, till, slack)
  if till > chunk_ends[chunk] then
    chunk_ends[chunk] = till + slack
    return true
  end
  return false
end

-- Writes the buckets; `till` is the latest expiry of what came into them.
local function save_buckets(till, slack)
  local by_chunk = {}
  for number in pairs(changed_buckets) do
    local chunk = floor(number / BUCKETS_IN_CHUNK)
    local lists = by_chunk[chunk]
    if not lists then
      lists = { set = {}, gone = {} }
      by_chunk[chunk] = lists
    end
    if buckets[number] == '' then
      lists.gone[#lists.gone + 1] = number
    else
      lists.set[#lists.set + 1] = number
      lists.set[#lists.set + 1] = buckets[number]
    end
  end
  for chunk, lists in pairs(by_chunk) do
    local moved = #lists.set > 0 and outlast(chunk, till, slack)
    if moved then
      lists.set[#lists.set + 1] = 'x'
      lists.set[#lists.set + 1] = chunk_ends[chunk]
    end
    call_in_slices('HSET', chunk_key(chunk), lists.set)
    call_in_slices('HDEL', chunk_key(chunk), lists.gone)
    if moved then redis.call('PEXPIREAT', chunk_key(chunk), digits(chunk_ends[chunk])) end
  end
  for key, result in pairs(changed_results) do
    if result then
      redis.call('SET', base .. ':r:' .. key, result[1], 'PXAT', digits(result[2]))
    else
      redis.call('DEL', base .. ':r:' .. key)
    end
  end
  if not has_buckets and next(by_chunk) then
    changed_meta.l = level
    changed_meta.s = split
  end
end
