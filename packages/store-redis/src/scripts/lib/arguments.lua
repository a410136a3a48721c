-- The client packs requests of one key each, with nothing else to say, as the fields that they are about: {{STATE, claim, key,
-- claim, key, ...}, ...}; any others as a flat array.
local arguments = cmsgpack.unpack(ARGV[1])
local are_singles = type(arguments[1]) == 'table'
