-- The idempotency keys of one namespace.
--
-- base            a hash: each held key, with the claim that holds it; under \254 and its id each claim; under \255 the state
-- base:d:<end>    a generation: a hash of completed keys, all of which are forgotten by `end`
--
-- A uuid comes as \255 and its 16 bytes, any other key as its UTF-8, where \254 and \255 do not occur.
--
-- The state is, in msgpack one after the other: the format, the last token, the ends of the generations (ascending), where the
-- next sweep begins, LONG.
-- A claim is, in msgpack one after the other: how many keys it holds, its place among those that were granted at one go, its
-- owner, its keys (an array, in msgpack), their fingerprints (an array with nil where there is none; '' where no key has one);
-- and its tail: the first token that was given out then, until when it lasts, when it is forgotten.
-- A held key has the mark of its claim, which is the claim's field, \255 and the digits of that first token; then
-- [\252 fingerprint] [\251 when somebody waits].
local base = KEYS[1]
local STATE = '\255'
-- An instant or a token takes nine bytes, and a tail three of them.
local TAIL = 27
local LEASES_KEPT = 10
-- One claim of so many sweeps.
local SWEPT_EACH = 64
-- How many keys at most are written at one go: Lua's stack holds some 8,000.
local MOST_AT_ONCE = 2000
-- Expiries of completed keys are kept since then. A key's generation outlives it by no more than a quarter of its retention.
local EPOCH = 1577836800000
local LEAST_SLACK = 1000
