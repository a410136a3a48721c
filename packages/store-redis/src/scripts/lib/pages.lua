-- What is completed above the watermark, in pages of 4,096 offsets: a flat array of runs while they are few, else an
-- array of 512 bytes, bit by bit from the lowest. At rest two bytes for each end of a run, or the 512 bytes.
local PAGE = 4096
local PAGE_BYTES = 512
local MOST_RUNS = 127
local power = { [0] = 1, 2, 4, 8, 16, 32, 64, 128, 256 }

local function decode_page(text)
  if not text then return false end
  if #text == PAGE_BYTES then
    local page = { byte(text, 1, PAGE_BYTES) }
    page.bitmap = true
    return page
  end
  local count = #text / 2
  local page = { struct.unpack('>' .. string.rep('H', count), text) }
  page[count + 1] = nil
  return page
end

local function encode_page(page)
  if page.bitmap then return char(unpack(page)) end
  return struct.pack('>' .. string.rep('H', #page), unpack(page))
end

-- The first place from `at` on, and below `limit`, which is in the page (or isn't, for `wanted` false); else `limit`.
local function next_in_page(page, at, limit, wanted)
  if not page.bitmap then
    local index = first_ending_after(page, at)
    local from = page[index]
    if not wanted then
      if from and from <= at then at = page[index + 1] end
    elseif not from then
      return limit
    elseif from > at then
      at = from
    end
    return at < limit and at or limit
  end
  while at < limit do
    local index, low = floor(at / 8), at % 8
    local high = limit - at + low
    if high > 8 then high = 8 end
    local mask = power[high] - power[low]
    local present = bit.band(page[index + 1], mask)
    if present == (wanted and 0 or mask) then
      at = at - low + high
    else
      while (floor(page[index + 1] / power[low]) % 2 == 1) ~= wanted do low = low + 1 end
      return index * 8 + low
    end
  end
  return limit
end

local function set_bits(page, from, to)
  while from < to do
    local index, low = floor(from / 8), from % 8
    local high = to - from + low
    if high > 8 then high = 8 end
    page[index + 1] = bit.bor(page[index + 1], power[high] - power[low])
    from = from - low + high
  end
end

-- Adds [from, to) to a page, and gives the page: another one where a bitmap has become the smaller form.
local function add_to_page(page, from, to)
  if page.bitmap then
    set_bits(page, from, to)
    return page
  end
  add_range(page, from, to)
  if #page <= 2 * MOST_RUNS then return page end
  local bitmap = { byte(string.rep('\0', PAGE_BYTES), 1, PAGE_BYTES) }
  bitmap.bitmap = true
  for at = 1, #page, 2 do set_bits(bitmap, page[at], page[at + 1]) end
  return bitmap
end

-- What of a page is below `limit`.
local function page_below(page, limit)
  local kept, at = {}, next_in_page(page, 0, limit, true)
  while at < limit do
    local to = next_in_page(page, at, limit, false)
    kept = add_to_page(kept, at, to)
    at = next_in_page(page, to, limit, true)
  end
  return kept
end
