-- An operator's act: what is at ARGV[1] or above counts as not completed.
local to = tonumber(ARGV[1])
load_stream({}, true)
redis.call('EXISTS', claims_key)

if not origin then
  begin_at(to)
else
  if to < origin then
    origin = to
    changed.o = true
  end
  if to < watermark then
    watermark = to
    changed.w = true
  end
  local first = page_of(to)
  local below = {}
  for at = 1, #full, 2 do
    if full[at] < first then
      below[#below + 1] = full[at]
      below[#below + 1] = math.min(full[at + 1], first)
    end
  end
  local page = page_at(first)
  if end_of_range(full, first) then page = { 0, PAGE } end
  full = below
  changed.f = true
  for _, number in ipairs(directory) do
    if number >= first then set_page(number, false) end
  end
  if page and to > watermark then
    local kept = page_below(page, to - first * PAGE)
    set_page(first, #kept > 0 and kept)
  end
end
supersede()
return 1
