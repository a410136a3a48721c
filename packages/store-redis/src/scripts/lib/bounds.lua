-- The bounds of a text with one range (see ranges.lua); nothing for any other.
local function bounds_of(text)
  local from, to
  local bound, value, scale = 0, 0, 1
  for at = 1, #text do
    local digit = string.byte(text, at)
    if digit < 64 then
      bound = bound + value + digit * scale
      if to then return nil end
      if from then to = bound else from = bound end
      value, scale = 0, 1
    else
      value = value + (digit - 64) * scale
      scale = scale * 64
    end
  end
  return from, to
end

-- The numbers of the two pages (see pages.lua) that the range touches; nothing where it may touch more.
local function pages_of(from, to)
  if not to then return nil end
  local first = math.floor(from / 4096)
  if math.floor(to / 4096) - first < 2 then return first, first + 1 end
end
