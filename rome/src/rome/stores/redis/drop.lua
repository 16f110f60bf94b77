#!lua flags=allow-oom
-- Remove tables and indexes that the schema no longer has, as many as `most` rows allow in one
-- call.  Keys of set indexes are found by the rows, so these go last.
local P = KEYS[1]
local version, tables, most = unpack(cmsgpack.unpack(ARGV[1]))
-- Under another version it may have them: a failover may have lost the change that dropped them.
if (redis.call('HGET', P .. 'meta', 'schema') or '0') ~= version then return {'schema'} end
local byte, sub = string.byte, string.sub

local function unlink_sets(t, sets, defaults, page)
  for i = 2, #page, 2 do
    for _, set in ipairs(sets) do
      local data = ''
      for _, slot in ipairs(set[2]) do data = data .. slice(page[i], slot, defaults) end
      redis.call('UNLINK', P .. 'i' .. t .. '.' .. set[1] .. ':' .. data)
    end
  end
end

local seen = 0
for place, entry in ipairs(tables) do
  local t, sets, unique, ordered, default_list, whole, cursor = unpack(entry)
  local defaults = {}
  for _, f in ipairs(default_list) do defaults[f[1]] = f[2] end
  if #sets > 0 then
    repeat
      if seen >= most then return {'more', place - 1, cursor} end
      local page = redis.call('HSCAN', P .. 'r' .. t, cursor, 'COUNT', 200)
      cursor = page[1]
      unlink_sets(t, sets, defaults, page[2])
      seen = seen + #page[2] / 2 * #sets + 1
    until cursor == '0'
  end
  for _, index in ipairs(unique) do redis.call('UNLINK', P .. 'u' .. t .. '.' .. index) end
  for _, index in ipairs(ordered) do redis.call('UNLINK', P .. 'o' .. t .. '.' .. index) end
  if whole then
    redis.call('UNLINK', P .. 'r' .. t, P .. 'scan' .. t, P .. 'log' .. t, P .. 'h' .. t)
    redis.call('HDEL', P .. 'ids', t)
    redis.call('HDEL', P .. 'writes', t)
  end
end
return {'done'}
