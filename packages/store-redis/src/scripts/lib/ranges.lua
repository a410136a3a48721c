-- Ranges of offsets: flat arrays {from, to, from, to, ...}, sorted, disjoint, not touching. On the wire and at rest
-- they are the differences of neighbours, each as digits of six bits, the lowest first, the last one below 64.
local END = 9007199254740992
local floor, byte, char = math.floor, string.byte, string.char

local function decode_ranges(text)
  local flat, count, bound, value, scale = {}, 0, 0, 0, 1
  for at = 1, #text do
    local digit = byte(text, at)
    if digit < 64 then
      bound = bound + value + digit * scale
      count = count + 1
      flat[count] = bound
      value, scale = 0, 1
    else
      value = value + (digit - 64) * scale
      scale = scale * 64
    end
  end
  return flat
end

local function encode_ranges(flat)
  local text, count, before = {}, 0, 0
  for at = 1, #flat do
    local value = flat[at] - before
    before = flat[at]
    while value >= 64 do
      count = count + 1
      text[count] = char(64 + value % 64)
      value = floor(value / 64)
    end
    count = count + 1
    text[count] = char(value)
  end
  return table.concat(text)
end

-- The index of the first range whose end is greater than `offset`.
local function first_ending_after(flat, offset)
  local low, high = 0, #flat / 2
  while low < high do
    local middle = floor((low + high) / 2)
    if flat[2 * middle + 2] > offset then high = middle else low = middle + 1 end
  end
  return 2 * low + 1
end

-- The end of the range that holds `offset`, or nil.
local function end_of_range(flat, offset)
  local at = first_ending_after(flat, offset)
  local from = flat[at]
  return from and from <= offset and flat[at + 1] or nil
end

-- Adds [from, to) in place.
local function add_range(flat, from, to)
  local count = #flat
  if count == 0 or from > flat[count] then
    flat[count + 1], flat[count + 2] = from, to
    return
  end
  local first = first_ending_after(flat, from - 1)
  local after = first
  while after < count and flat[after] <= to do
    if flat[after] < from then from = flat[after] end
    if flat[after + 1] > to then to = flat[after + 1] end
    after = after + 2
  end
  if after == first then
    table.insert(flat, first, to)
    table.insert(flat, first, from)
    return
  end
  flat[first], flat[first + 1] = from, to
  local gone = after - first - 2
  if gone > 0 then
    for at = first + 2, count - gone do flat[at] = flat[at + gone] end
    for at = count, count - gone + 1, -1 do flat[at] = nil end
  end
end

local function size_of(flat)
  local size = 0
  for at = 1, #flat, 2 do size = size + flat[at + 1] - flat[at] end
  return size
end

local function is_open_ended(flat)
  return flat[#flat] == END
end

local function overlaps(left, right)
  local i, j = 1, 1
  while i < #left and j < #right do
    if left[i + 1] <= right[j] then i = i + 2
    elseif right[j + 1] <= left[i] then j = j + 2
    else return true end
  end
  return false
end

local function intersect(left, right)
  local flat, i, j = {}, 1, 1
  while i < #left and j < #right do
    local from, to = left[i], left[i + 1]
    if right[j] > from then from = right[j] end
    if right[j + 1] < to then to = right[j + 1] end
    if from < to then
      flat[#flat + 1] = from
      flat[#flat + 1] = to
    end
    if left[i + 1] <= right[j + 1] then i = i + 2 else j = j + 2 end
  end
  return flat
end

local function subtract(left, right)
  local flat, j = {}, 1
  for i = 1, #left, 2 do
    local from, to = left[i], left[i + 1]
    while j < #right and right[j + 1] <= from do j = j + 2 end
    local k = j
    while k < #right and right[k] < to do
      if right[k] > from then
        flat[#flat + 1] = from
        flat[#flat + 1] = right[k]
      end
      from = right[k + 1]
      k = k + 2
    end
    if from < to then
      flat[#flat + 1] = from
      flat[#flat + 1] = to
    end
  end
  return flat
end
