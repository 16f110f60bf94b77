#!lua
-- One page of a table's rows: their entries in an index are made.
local P = KEYS[1]
local t, index, slots, unique, default_list, cursor = unpack(cmsgpack.unpack(ARGV[1]))
local byte, sub = string.byte, string.sub
local defaults = {}
for _, f in ipairs(default_list) do defaults[f[1]] = f[2] end

local page = redis.call('HSCAN', P .. 'r' .. t, cursor, 'COUNT', 1500)
for i = 1, #page[2], 2 do
  local n, row = page[2][i], page[2][i + 1]
  local data, whole = '', true
  for _, slot in ipairs(slots) do
    local part = slice(row, slot, defaults)
    if part == '\192' then whole = false end
    data = data .. part
  end
  if unique then
    local key = P .. 'u' .. t .. '.' .. index
    if whole then
      local holder = redis.call('HGET', key, data)
      if holder and holder ~= n then return {'duplicate', holder} end
      redis.call('HSET', key, data, n)
    end
  else
    redis.call('SADD', P .. 'i' .. t .. '.' .. index .. ':' .. data, n)
  end
end
return {'page', page[1]}
