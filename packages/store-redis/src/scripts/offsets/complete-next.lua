-- Completes one range at the watermark, where nothing is completed near it: all that a claim is on, for which nobody waits, or
-- a part of an open-ended one. That is what most requests are; see claim-next.lua, complete.lua.
if #ARGV == 2 then
  local id, completed = ARGV[1], ARGV[2]
  local from, to = bounds_of(completed)
  local first, second = pages_of(from, to)
  local claim = first and redis.call('HGET', KEYS[2], id)
  if claim then
    local found = redis.call('HMGET', KEYS[1], 'v', 'w', 'f', first, second)
    local _, till, lease, remaining, waited, _, requested, held = cmsgpack.unpack(claim)
    local is_next = found[1] == FORMAT and tonumber(found[2]) == from
      and not found[3] and not found[4] and not found[5]
      -- it holds all that it asked for, and is not forgotten
      and held == '' and now < till + 10 * lease
    local is_all = is_next and requested == completed and remaining == to - from and waited == 0
    local open_from = is_next and remaining == -1 and bounds_of(requested)
    if is_all or open_from and open_from <= from then
      -- when memory is full, Redis refuses a script's first write if it could take memory: this one does not
      redis.call('HDEL', KEYS[2], is_all and id or '\254')
      redis.call('HSET', KEYS[1], 'w', string.format('%.0f', to), 'm', now)
      return { 1 }
    end
  end
end
