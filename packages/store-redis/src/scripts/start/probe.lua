-- Tries what the scripts need, on keys that nobody else uses. Answers {command, error} for the first that is refused.
local hash, text, set = KEYS[1], KEYS[1] .. ':c', KEYS[1] .. ':i'
local soon = redis.call('TIME')[1] * 1000 + 60000
local tries = {
  { 'HDEL', hash, 'field' },
  { 'HSET', hash, 'field', '1' },
  { 'HGET', hash, 'field' },
  { 'HMGET', hash, 'field' },
  { 'HGETALL', hash },
  { 'HKEYS', hash },
  { 'PEXPIREAT', hash, string.format('%.0f', soon) },
  { 'SET', text, '1', 'PXAT', string.format('%.0f', soon) },
  { 'GET', text },
  { 'EXISTS', text },
  { 'UNLINK', text },
  { 'ZADD', set, 1, 1 },
  { 'ZRANGEBYSCORE', set, 1, 1 },
  { 'ZCARD', set },
  { 'ZREM', set, 1 },
  { 'DEL', hash, text, set }
}
for _, try in ipairs(tries) do
  local reply = redis.pcall(unpack(try))
  if type(reply) == 'table' and reply.err then return { try[1], reply.err } end
end
return false
