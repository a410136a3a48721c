-- The format of what is stored.
local FORMAT = '1'
