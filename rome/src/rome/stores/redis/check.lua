#!lua flags=allow-oom
-- One page of a check: rows against their index entries, or entries against their rows;
-- with `repair` what is wrong in entries is made right from the rows.
local P = KEYS[1]
local c = cmsgpack.unpack(ARGV[1])
local byte, sub = string.byte, string.sub
if (redis.call('HGET', P .. 'meta', 'schema') or '0') ~= c.version then return {'schema'} end

local findings = {}
-- Make an entry right; answers that were made from wrong ones are void.
local function mend(t, ...)
  if not c.repair then return end
  redis.call(...)
  redis.call('HSET', P .. 'writes', t, c.token)
  redis.call('UNLINK', P .. 'scan' .. t)  -- who reads the table in pages begins anew
end

local function report(kind, table_no, index, number, data)
  findings[#findings + 1] = {kind, table_no, index, number, data or ''}
end

local function defaults_of(list)
  local defaults = {}
  for _, f in ipairs(list) do defaults[f[1]] = f[2] end
  return defaults
end

-- Whether the offsets of a row fit its length.
local function sound(row)
  if #row < 6 then return false end
  local width, high, low = byte(row, 1, 3)
  local count = high * 256 + low
  local base = 3 + width * count + 3
  if (width ~= 2 and width ~= 4) or #row < base then return false end
  if sub(row, base - 2, base) ~= struct.pack('>BH', 0xdc, count) then return false end
  local form, last = width == 2 and '>H' or '>I4', 0
  for i = 1, count do
    local stop = struct.unpack(form, row, 4 + width * (i - 1))
    if stop <= last then return false end
    last = stop
  end
  return base + last == #row
end

-- The bytes of an index's columns, and whether none is NULL.
local function key_of(row, slots, defaults)
  local data, whole = '', true
  for _, slot in ipairs(slots) do
    local part = slice(row, slot, defaults)
    if part == '\192' then whole = false end
    data = data .. part
  end
  return data, whole
end

-- The row number that a value is, as text.
local function number_in(data)
  local good, value = pcall(cmsgpack.unpack, data)
  return good and type(value) == 'number' and string.format('%.0f', value)
end

local function unique_key(t, i) return P .. 'u' .. t .. '.' .. i end
local function set_key(t, i, data) return P .. 'i' .. t .. '.' .. i .. ':' .. data end

-- The bytes of the key that row n has now in an index; nil: there is no such row.
local function key_now(t, slots, defaults, n)
  local row = redis.call('HGET', P .. 'r' .. t, n)
  if not row or not sound(row) then return nil end
  return key_of(row, slots, defaults)
end

local function rows()
  local t, defaults = c.t, defaults_of(c.defaults)
  local page = redis.call('HSCAN', P .. 'r' .. t, c.cursor, 'COUNT', 500)
  local highest, count = '0', 0
  for at = 1, #page[2], 2 do
    local n, row = page[2][at], page[2][at + 1]
    count = count + 1
    if tonumber(n) > tonumber(highest) then highest = n end
    if not sound(row) then
      report('unreadable', t, 0, n)
    else
      if c.key then
        if number_in(slice(row, c.key, defaults)) ~= n then report('number', t, 0, n) end
      end
      for _, slot in ipairs(c.not_null) do
        if slice(row, slot, defaults) == '\192' then report('null', t, slot, n) end
      end
      for _, index in ipairs(c.indexes) do
        local number, slots, unique = index[1], index[2], index[3]
        local data, whole = key_of(row, slots, defaults)
        if not unique then
          local key = set_key(t, number, data)
          if redis.call('SISMEMBER', key, n) == 0 then
            report('missing', t, number, n, data)
            mend(t, 'SADD', key, n)
          end
        elseif whole then
          local key = unique_key(t, number)
          local holder = redis.call('HGET', key, data)
          if holder and holder ~= n and key_now(t, slots, defaults, holder) == data then
            report('twice', t, number, n, data)
          elseif holder ~= n then
            report('missing', t, number, n, data)
            mend(t, 'HSET', key, data, n)
          end
        end
      end
      for place, parent in ipairs(c.parents) do
        local slots, kind, parent_no, index = unpack(parent)
        local data, whole = key_of(row, slots, defaults)
        if whole then
          local there
          if kind == 'row' then
            local number = number_in(data)
            there = number and redis.call('HEXISTS', P .. 'r' .. parent_no, number) == 1
          elseif kind == 'unique' then
            there = redis.call('HEXISTS', unique_key(parent_no, index), data) == 1
          else
            there = redis.call('EXISTS', set_key(parent_no, index, data)) == 1
          end
          if not there then report('orphan', t, place - 1, n, data) end
        end
      end
    end
  end
  return {'page', findings, page[1], highest, count}
end

local function unique()
  local t, defaults = c.t, defaults_of(c.defaults)
  local key = unique_key(t, c.index)
  local page = redis.call('HSCAN', key, c.cursor, 'COUNT', 1000)
  for at = 1, #page[2], 2 do
    local data, n = page[2][at], page[2][at + 1]
    local now = key_now(t, c.slots, defaults, n)
    if now ~= data then
      report(now and 'other' or 'gone', t, c.index, n, data)
      mend(t, 'HDEL', key, data)
    end
  end
  return {'page', findings, page[1]}
end

local function sets()
  -- The fewer sets are left, the more of each.
  local cursors, count = {}, math.max(100, math.floor(2000 / #c.sets))
  for place, entry in ipairs(c.sets) do
    local t, index, slots, default_list, data, cursor = unpack(entry)
    local defaults, key = defaults_of(default_list), set_key(t, index, data)
    local page = redis.call('SSCAN', key, cursor, 'COUNT', count)
    for _, n in ipairs(page[2]) do
      local now = key_now(t, slots, defaults, n)
      if now ~= data then
        report(now and 'other' or 'gone', t, index, n, data)
        mend(t, 'SREM', key, n)
      end
    end
    cursors[place] = page[1]
  end
  return {'page', findings, cursors}
end

-- Raise the highest number handed out, and remove what no table has.
local function amend()
  local ids = P .. 'ids'
  for _, x in ipairs(c.highest) do
    if tonumber(redis.call('HGET', ids, x[1]) or '0') < tonumber(x[2]) then
      redis.call('HSET', ids, x[1], x[2])
    end
  end
  for _, key in ipairs(c.keys) do redis.call('UNLINK', key) end
  for _, x in ipairs(c.fields) do redis.call('HDEL', P .. x[1], x[2]) end
  return {'page', findings}
end

if c.mode == 'rows' then return rows() end
if c.mode == 'unique' then return unique() end
if c.mode == 'sets' then return sets() end
return amend()
