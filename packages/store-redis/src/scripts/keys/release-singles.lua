-- Gives back requests of one named key each, if all are held as they were granted: see release.lua.
local arguments = cmsgpack.unpack(ARGV[1])

local function release_singles()
  local fields = fields_of_singles(arguments, 2, 1)
  local gone = fields and held_singles(fields)
  if not gone then return nil end
  redis.call('HDEL', base, unpack(gone))
  wake_waiting()
  return #arguments / 2
end

local released = release_singles()
if released then return released end
