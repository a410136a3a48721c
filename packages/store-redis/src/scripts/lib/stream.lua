-- One stream: a hash with its format (v), origin (o), watermark (w), epoch (e), last token (t), when it last changed (m),
-- what an owner has noted (n), the pages of which all is completed (f: ranges of page numbers), and each other page
-- under its number. Pages below the watermark are gone; in the page of the watermark, what is below it does not count.
-- The claims are in a second hash, by their id.
local base, claims_key = KEYS[1], KEYS[2]

local origin, watermark, epoch, token
local full = {}
-- By number: a page, or false where there is none; nil: not read yet.
local pages = {}
-- Sorted numbers of all pages there are, where a question spans so many pages that they are not asked for one by one.
local directory
local MOST_PAGES_ASKED = 64

local changed = {}
local changed_pages = {}

local function page_of(offset)
  return floor(offset / PAGE)
end

-- Reads the stream, with the pages that these ranges touch; `whole`: with a list of all pages there are.
local function load_stream(all_ranges, whole)
  if whole then directory = {} end
  local fields, wanted, count = { 'v', 'o', 'w', 'e', 't', 'f' }, {}, 0
  for _, flat in ipairs(all_ranges) do
    if directory then break end
    for at = 1, #flat, 2 do
      local first, last = page_of(flat[at]), page_of(flat[at + 1])
      if last - first + count > MOST_PAGES_ASKED then
        directory = {}
        break
      end
      for number = first, last do
        if not wanted[number] then
          wanted[number] = true
          count = count + 1
          fields[6 + count] = number
        end
      end
    end
  end
  local found = redis.call('HMGET', base, unpack(fields, 1, 6 + count))
  check_format(found[1])
  origin, watermark = tonumber(found[2]), tonumber(found[3])
  epoch, token = tonumber(found[4]) or 0, tonumber(found[5])
  if found[6] then full = decode_ranges(found[6]) end
  for at = 7, 6 + count do pages[fields[at]] = decode_page(found[at]) end
  if directory then
    for _, field in ipairs(redis.call('HKEYS', base)) do
      directory[#directory + 1] = tonumber(field)
    end
    table.sort(directory)
  end
end

local function page_at(number)
  local page = pages[number]
  if page == nil then
    page = decode_page(redis.call('HGET', base, number))
    pages[number] = page
  end
  return page
end

local function set_page(number, page)
  pages[number] = page
  changed_pages[number] = true
  if page and directory then
    for at = 1, #directory do
      if directory[at] == number then return end
    end
    directory[#directory + 1] = number
    table.sort(directory)
  end
end

-- The first number from `number` on, and below `limit`, of a page that has an entry or is full; else `limit`.
local function next_entry(number, limit)
  local at = first_ending_after(full, number)
  if full[at] and full[at] < limit then limit = full[at] > number and full[at] or number end
  if not directory then
    while number < limit and not page_at(number) do number = number + 1 end
    return number
  end
  for _, entry in ipairs(directory) do
    if entry >= limit then break end
    if entry >= number and page_at(entry) then return entry end
  end
  return limit
end

-- The first completed offset from `offset` (the watermark or above it) on; `limit` where there is none below it.
local function next_present(offset, limit)
  while offset < limit do
    local number = page_of(offset)
    if end_of_range(full, number) then return offset end
    local page = page_at(number)
    if page then
      local within = next_in_page(page, offset - number * PAGE, PAGE, true)
      if within < PAGE then
        offset = number * PAGE + within
        return offset < limit and offset or limit
      end
    end
    offset = next_entry(number + 1, page_of(limit - 1) + 1) * PAGE
  end
  return limit
end

-- The first offset from `offset` (the watermark or above it) on that is not completed; `limit` or more: none below it.
local function next_missing(offset, limit)
  while offset < limit do
    local number = page_of(offset)
    local past = end_of_range(full, number)
    if past then
      offset = past * PAGE
    else
      local page = page_at(number)
      if not page then return offset end
      local within = next_in_page(page, offset - number * PAGE, PAGE, false)
      offset = number * PAGE + within
      if within < PAGE then return offset end
    end
  end
  return offset
end

-- What of the ranges is completed, and what is not.
local function partition(flat)
  if not origin then return {}, flat end
  local present, missing = {}, {}
  local function put(list, from, to)
    local count = #list
    if list[count] == from then
      list[count] = to
    else
      list[count + 1], list[count + 2] = from, to
    end
  end
  for index = 1, #flat, 2 do
    local at, to = flat[index], flat[index + 1]
    if at < origin then
      local stop = to < origin and to or origin
      put(missing, at, stop)
      at = stop
    end
    if at < to and at < watermark then
      local stop = to < watermark and to or watermark
      put(present, at, stop)
      at = stop
    end
    while at < to do
      local from = next_present(at, to)
      if from > at then put(missing, at, from) end
      if from >= to then break end
      at = next_missing(from, to)
      if at > to then at = to end
      put(present, from, at)
    end
  end
  return present, missing
end

local function add_full(first, past)
  add_range(full, first, past)
  changed.f = true
  for number in pairs(pages) do
    if number >= first and number < past and pages[number] then set_page(number, false) end
  end
  if directory then
    for _, number in ipairs(directory) do
      if number >= first and number < past and page_at(number) then set_page(number, false) end
    end
  end
end

local function insert_in_page(number, from, to)
  if end_of_range(full, number) then return end
  local page = add_to_page(page_at(number) or {}, from, to)
  if next_in_page(page, 0, PAGE, false) == PAGE then
    add_full(number, number + 1)
  end
  set_page(number, not end_of_range(full, number) and page)
end

-- Adds [from, to), which lies above the watermark.
local function insert_above(from, to)
  local first, last = page_of(from), page_of(to - 1)
  if first == last then
    insert_in_page(first, from - first * PAGE, to - first * PAGE)
    return
  end
  if from > first * PAGE then
    insert_in_page(first, from - first * PAGE, PAGE)
    first = first + 1
  end
  if to < (last + 1) * PAGE then
    insert_in_page(last, 0, to - last * PAGE)
    last = last - 1
  end
  if first <= last then add_full(first, last + 1) end
end

-- Moves the watermark over what is completed next to it, and forgets the pages that it has passed.
local function settle_watermark()
  local reached = next_missing(watermark, END)
  if reached ~= watermark then
    watermark = reached
    changed.w = true
  end
  local number = page_of(watermark)
  for passed, page in pairs(pages) do
    if page and passed < number then set_page(passed, false) end
  end
  while full[1] and full[2] <= number do
    table.remove(full, 1)
    table.remove(full, 1)
    changed.f = true
  end
  local page = pages[number]
  if page and next_in_page(page, watermark - number * PAGE, PAGE, true) == PAGE then set_page(number, false) end
end

local function add_completed(flat)
  if #flat == 0 then return end
  for at = 1, #flat, 2 do
    local from, to = flat[at], flat[at + 1]
    if from <= watermark then
      if to > watermark then
        watermark = to
        changed.w = true
      end
    else
      insert_above(from, to)
    end
  end
  settle_watermark()
end

-- The stream begins at `from`, if it did not begin there or below before.
local function begin_at(from)
  if not origin then
    origin, watermark = from, from
  elseif from < origin then
    local dense_from, dense_to = origin, watermark
    origin, watermark = from, from
    if dense_from < dense_to then insert_above(dense_from, dense_to) end
  else
    return
  end
  changed.o = true
  changed.w = true
end

-- What a stream of this name may have given out before it was forgotten.
local function token_floor()
  return tonumber(redis.call('GET', base .. ':t') or 0)
end

-- Writes what has changed.
local function save_stream()
  local set, gone = {}, {}
  local function put(field, value)
    set[#set + 1] = field
    set[#set + 1] = value
  end
  if changed.o then
    put('v', FORMAT)
    put('o', origin)
  end
  if changed.w then put('w', watermark) end
  if changed.e then put('e', epoch) end
  if changed.t then put('t', token) end
  if changed.f then
    if full[1] then put('f', encode_ranges(full)) else gone[#gone + 1] = 'f' end
  end
  for number in pairs(changed_pages) do
    if pages[number] then put(number, encode_page(pages[number])) else gone[#gone + 1] = number end
  end
  if origin then put('m', now) end
  call_in_slices('HSET', base, set)
  call_in_slices('HDEL', base, gone)
end
