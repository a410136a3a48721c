-- Gives back requests of one named key each, if all are held as they were granted: see singles.lua, release.lua.
if are_held then
  redis.call('HDEL', base, unpack(arguments[1], 2))
  for _, key in ipairs(waited_for or {}) do
    redis.pcall('PUBLISH', string.match(base, '^([^{]*):k:{') .. ':wake', base .. key)
  end
  return 1
end
