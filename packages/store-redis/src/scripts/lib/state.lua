local sub, byte, char, match = string.sub, string.byte, string.char, string.match

-- Redis keeps a hash of few short fields as a list, which it searches from its beginning: with one long field it does not.
local LONG = '-----------------------------------------------------------------'

local function stamp_of(first)
  return '\255' .. digits(first)
end

-- The last token, and when each generation ends, ascending.
local token, generations, sweep_cursor = 0, {}, '0'
local state_changed = false

local function read_state(text)
  if not text then return end
  local format
  format, token, generations, sweep_cursor = cmsgpack.unpack(text)
  check_format(format)
end

local function pack_state()
  return cmsgpack.pack(FORMAT, token, generations, sweep_cursor, LONG)
end

local function generation_key(ends)
  return base .. ':d:' .. digits(ends)
end

-- Keys that are free now, and that somebody waits for.
local woken = {}

local function wake_waiting()
  for _, key in ipairs(woken) do wake(base, base .. key) end
end
