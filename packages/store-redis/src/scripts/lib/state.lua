-- The idempotency keys of one namespace.
--
-- base            a hash: each held key, with the claim that holds it; under \254 and its id each claim; under \255 the state
-- base:d:<end>    a generation: a hash of completed keys, all of which are forgotten by `end`
--
-- A uuid comes as \255 and its 16 bytes, any other key as its UTF-8, where \254 and \255 do not occur.
local base = KEYS[1]
local LEASES_KEPT = 10
local sub, byte, char, match = string.sub, string.byte, string.char, string.match

local STATE = '\255'
-- Redis keeps a hash of few short fields as a list, which it searches from its beginning: with one long field it does not.
local LONG = '-----------------------------------------------------------------'

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
