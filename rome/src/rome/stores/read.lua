-- Rows for one statement, in one call.  See base.py for the words of a request.
local P = KEYS[1]
local version, steps, watched, most, cursor, unless = unpack(cmsgpack.unpack(ARGV[1]))
if (redis.call('HGET', P .. 'meta', 'schema') or '0') ~= version then return {'schema'} end
-- The last commits of the tables that are watched.
local commits = #watched > 0 and redis.call('HMGET', P .. 'writes', unpack(watched))
if #unless > 0 then
  local same = true
  for i = 1, #unless do
    if (commits[i] or '0') ~= unless[i] then same = false; break end
  end
  if same then return {'same'} end
end

local NIL = '\192'
local byte, sub = string.byte, string.sub

-- The bytes of column `slot` (from 0) of a row; rows older than the column don't have it.
local function slice(row, slot, fills)
  local width, high, low = byte(row, 1, 3)
  local count = high * 256 + low
  if slot >= count then return fills[slot] or NIL end
  local base = 3 + width * count + 3
  local first, last = 0, 0
  if width == 2 then
    if slot > 0 then
      local a, b, c, d = byte(row, 2 + 2 * slot, 5 + 2 * slot)
      first, last = a * 256 + b, c * 256 + d
    else
      local a, b = byte(row, 4, 5)
      last = a * 256 + b
    end
  else
    local at = 4 + 4 * slot
    local a, b, c, d = byte(row, at, at + 3)
    last = ((a * 256 + b) * 256 + c) * 256 + d
    if slot > 0 then
      a, b, c, d = byte(row, at - 4, at - 1)
      first = ((a * 256 + b) * 256 + c) * 256 + d
    end
  end
  return sub(row, base + first + 1, base + last)
end

-- Just these columns of a row, as a msgpack array.
local function part(row, columns, fills)
  local parts = {}
  for i = 1, #columns do parts[i] = slice(row, columns[i], fills) end
  return columns.head .. table.concat(parts)
end

-- SQLite's order of storage classes: NULL, numbers, text, blobs.
local function rank(data)
  local b = byte(data, 1)
  if b == 0xc0 then return 0 end
  if b <= 0x7f or b >= 0xe0 or (b >= 0xca and b <= 0xd3) then return 1 end
  if (b >= 0xa0 and b <= 0xbf) or (b >= 0xd9 and b <= 0xdb) then return 2 end
  return 3
end

-- Whether two strings are in order, byte by byte.  Lua's own `<` follows the server's
-- locale, which is byte by byte only where capitals come first.
local function text_less(a, b) return a < b end
if 'a' < 'B' then
  text_less = function(a, b)
    local n = math.min(#a, #b)
    for i = 1, n, 8 do
      if sub(a, i, i + 7) ~= sub(b, i, i + 7) then
        for j = i, math.min(i + 7, n) do
          local x, y = byte(a, j), byte(b, j)
          if x ~= y then return x < y end
        end
      end
    end
    return #a < #b
  end
end

-- Storage class and value; small numbers and text are the usual ones.
local function decode(data)
  local b = byte(data, 1)
  if b <= 0x7f then return 1, b end
  if b == 0xc0 then return 0, nil end
  if b >= 0xe0 then return 1, b - 256 end
  if b >= 0xa0 and b <= 0xbf then return 2, sub(data, 2) end
  if b == 0xd9 then return 2, sub(data, 3) end
  if b == 0xda then return 2, sub(data, 4) end
  if b == 0xdb then return 2, sub(data, 6) end
  if b == 0xc4 then return 3, sub(data, 3) end
  if b == 0xc5 then return 3, sub(data, 4) end
  if b == 0xc6 then return 3, sub(data, 6) end
  return rank(data), cmsgpack.unpack(data)
end

local function less(ra, a, rb, b)
  if ra ~= rb then return ra < rb end
  if ra == 0 then return false end
  if ra == 1 then return a < b end
  return text_less(a, b)
end

local passes
passes = function(row, filters, fills)
  for i = 1, #filters do
    local f = filters[i]
    local op = f[2]
    local data = op ~= 'any' and slice(row, f[1], fills)
    if op == 'any' then
      local branches, good = f[3], false
      for j = 1, #branches do
        if passes(row, branches[j], fills) then good = true; break end
      end
      if not good then return false end
    elseif op == 'in' then
      if not f.set[data] then return false end
    elseif op == 'out' then
      if data == NIL or f.set[data] then return false end
    elseif op == 'not' then
      if f.set[data] then return false end
    elseif op == 'null' then
      if data ~= NIL then return false end
    elseif op == 'some' then
      if data == NIL then return false end
    else
      local r, v = decode(data)
      if r == 0 or r ~= f.rank then
        -- Another storage class than the bound's: only the class decides.
        if r == 0 then return false end
        if (op == '<' or op == '<=') ~= (r < f.rank) then return false end
      elseif op == '<' then
        if not less(r, v, r, f.value) then return false end
      elseif op == '<=' then
        if less(r, f.value, r, v) then return false end
      elseif op == '>' then
        if not less(r, f.value, r, v) then return false end
      elseif less(r, v, r, f.value) then return false end
    end
  end
  return true
end

local prepare
prepare = function(filters)
  for _, f in ipairs(filters) do
    if f[2] == 'any' then
      for _, branch in ipairs(f[3]) do prepare(branch) end
    elseif f[2] == 'in' or f[2] == 'out' or f[2] == 'not' then
      f.set = {}
      for _, v in ipairs(f[3]) do f.set[v] = true end
    elseif f[2] ~= 'null' and f[2] ~= 'some' then
      f.rank, f.value = decode(f[3][1])
    end
  end
end

-- Counts, sums and extremes; nil where a sum would lose digits.
local EXACT = 9007199254740992
local function summed_up(rows, fills, slots, functions)
  local groups, order = {}, {}
  local function group(key)
    local g = groups[key]
    if not g then
      g = {}
      for j = 1, #functions do g[j] = {n = 0} end
      groups[key] = g
      order[#order + 1] = g
    end
    return g
  end
  if #slots == 0 then group('') end
  for i = 1, #rows do
    local row = rows[i]
    local key = ''
    for _, slot in ipairs(slots) do key = key .. slice(row, slot, fills) end
    local g = group(key)
    for j, f in ipairs(functions) do
      local name, slot, a = f[1], f[2], g[j]
      if slot < 0 then a.n = a.n + 1
      else
        local data = slice(row, slot, fills)
        if name == '' then a.best = data
        elseif data ~= NIL then
          a.n = a.n + 1
          if name == 'sum' then
            local r, v = decode(data)
            local b = byte(data, 1)
            -- SQLite adds doubles in a way of its own.
            if r ~= 1 or b == 0xca or b == 0xcb then return nil end
            a.sum = (a.sum or 0) + v
            if math.abs(v) >= EXACT or math.abs(a.sum) >= EXACT then return nil end
          elseif name ~= 'count' then
            local r, v = decode(data)
            if r == 1 and math.abs(v) >= EXACT then return nil end
            local better = not a.best
            if not better then
              if name == 'min' then better = less(r, v, a.r, a.v)
              else better = less(a.r, a.v, r, v) end
            end
            if better then a.best, a.r, a.v = data, r, v end
          end
        end
      end
    end
  end
  local out = {}
  for i, g in ipairs(order) do
    local values = {}
    for j, f in ipairs(functions) do
      local name, a = f[1], g[j]
      if name == 'count' then values[j] = cmsgpack.pack(a.n)
      elseif name == 'sum' then
        values[j] = a.sum and cmsgpack.pack(a.sum) or NIL
      else values[j] = a.best or NIL end
    end
    out[i] = values
  end
  return out
end

-- Rows of one table by number, once each over all steps.
local taken, found = {}, {}

local function fetch(table_no, numbers)
  local key = P .. 'r' .. table_no
  if #numbers == 0 then return {} end
  if #numbers <= 2000 then return redis.call('HMGET', key, unpack(numbers)) end
  local rows = {}
  for start = 1, #numbers, 2000 do
    local stop = math.min(start + 1999, #numbers)
    local values = redis.call('HMGET', key, unpack(numbers, start, stop))
    for i = 1, stop - start + 1 do rows[start + i - 1] = values[i] end
  end
  return rows
end

local function members(index_key, kind, keys)
  local numbers, have = {}, {}
  local function add(n)
    if n and not have[n] then have[n] = true; numbers[#numbers + 1] = n end
  end
  if kind == 'set' and #keys == 1 then return redis.call('SMEMBERS', index_key .. ':' .. keys[1]) end
  if kind == 'row' then
    for _, k in ipairs(keys) do add(k) end
  elseif kind == 'unique' then
    for start = 1, #keys, 2000 do
      local got = redis.call('HMGET', index_key, unpack(keys, start, math.min(start + 1999, #keys)))
      for i = 1, math.min(2000, #keys - start + 1) do add(got[i]) end
    end
  else
    for _, k in ipairs(keys) do
      for _, n in ipairs(redis.call('SMEMBERS', index_key .. ':' .. k)) do add(n) end
    end
  end
  return numbers
end

-- What a join looks for: the distinct values in the rows of an earlier step.
local function joined(source, slots, kind)
  local keys, have = {}, {}
  local rows = found[source]
  for i = 1, #rows.all do
    local data = slice(rows.all[i], slots[1], rows.fills)
    local whole = data ~= NIL
    for j = 2, #slots do
      local more = slice(rows.all[i], slots[j], rows.fills)
      if more == NIL then whole = false end
      data = data .. more
    end
    if whole and not have[data] then
      have[data] = true
      if kind == 'row' then
        local n = cmsgpack.unpack(data)
        if type(n) == 'number' then keys[#keys + 1] = string.format('%.0f', n) end
      else
        keys[#keys + 1] = data
      end
    end
  end
  return keys
end

local function size(table_no, lookup)
  if lookup[1] ~= 'set' then return #lookup.keys end
  local total = 0
  local key = P .. 'i' .. table_no .. '.' .. lookup[2] .. ':'
  for _, k in ipairs(lookup.keys) do total = total + redis.call('SCARD', key .. k) end
  return total
end

-- The first rows in an order.  Rows equal to the last one come as well: which of them count
-- is the caller's to say; without any order, those with the lowest numbers come first.
local function first(rows, numbers, order, limit, fills)
  local places, ranks, values, m = {}, {}, {}, #order
  for i = 1, #rows do places[i] = i end
  if m == 0 then
    m = 1
    ranks[1], values[1] = {}, {}
    for i = 1, #rows do ranks[1][i], values[1][i] = 1, tonumber(numbers[i]) end
    order = {{0, false}}
  else
    for j = 1, m do
      local slot, r, v = order[j][1], {}, {}
      for i = 1, #rows do r[i], v[i] = decode(slice(rows[i], slot, fills)) end
      ranks[j], values[j] = r, v
    end
  end
  -- -1, 0 or 1
  local function compare(x, y)
    for j = 1, m do
      local rx, ry = ranks[j][x], ranks[j][y]
      local before
      if rx ~= ry then before = rx < ry
      elseif rx ~= 0 then
        local a, b = values[j][x], values[j][y]
        if a ~= b then
          if rx == 1 then before = a < b else before = text_less(a, b) end
        end
      end
      if before ~= nil then return before ~= order[j][2] and -1 or 1 end
    end
    return 0
  end
  table.sort(places, function(x, y) return compare(x, y) < 0 end)
  local stop = limit
  while stop < #places and compare(places[limit], places[stop + 1]) == 0 do stop = stop + 1 end
  local top, top_numbers = {}, {}
  for i = 1, stop do
    top[i], top_numbers[i] = rows[places[i]], numbers[places[i]]
  end
  return top, top_numbers
end

local answer = {'rows'}
for number, step in ipairs(steps) do
  local table_no, lookups, filters, fill_list, order, limit, columns = unpack(step)
  local fills = {}
  for _, f in ipairs(fill_list) do fills[f[1]] = f[2] end
  prepare(filters)
  local best, best_size
  local sets = {}
  for _, lookup in ipairs(lookups) do
    lookup.keys = lookup[3] or joined(lookup[4] + 1, lookup[5], lookup[1])
    if not lookup[3] then
      for _, k in ipairs(lookup[6] or {}) do lookup.keys[#lookup.keys + 1] = k end
    elseif lookup[1] == 'set' and #lookup.keys == 1 then
      sets[#sets + 1] = lookup
    end
    local n = size(table_no, lookup)
    if not best or n < best_size then best, best_size = lookup, n end
  end
  local numbers, rows
  -- Filters that say what the look-up says already are done.
  local function done(lookup)
    if lookup[3] then
      for _, place in ipairs(lookup[4]) do filters[place + 1].done = true end
    end
  end
  if best and #sets > 1 and best_size > 8 and best[1] == 'set' and #best.keys == 1 and best[3] then
    local keys = {}
    for i, lookup in ipairs(sets) do
      keys[i] = P .. 'i' .. table_no .. '.' .. lookup[2] .. ':' .. lookup.keys[1]
      done(lookup)
    end
    numbers = redis.call('SINTER', unpack(keys))
  elseif best then
    numbers = members(P .. (best[1] == 'unique' and 'u' or 'i') .. table_no .. '.' .. best[2],
                      best[1], best.keys)
    done(best)
  end
  local tests = {}
  for _, f in ipairs(filters) do
    if not f.done then tests[#tests + 1] = f end
  end
  local counted = step[8] and #tests == 0 and #step[8][1] == 0
  if counted then
    for _, f in ipairs(step[8][2]) do
      if f[1] ~= 'count' or f[2] >= 0 then counted = false end
    end
  end
  if counted then
    -- Only the number of rows is asked for, and no row needs to be looked at.
    local n = numbers and #numbers or redis.call('HLEN', P .. 'r' .. table_no)
    if not best or best[1] == 'set' then
      local values = {}
      for i = 1, #step[8][2] do values[i] = cmsgpack.pack(n) end
      answer[number + 1] = {values}
    else
      counted = false
    end
  end
  if not counted then
  if numbers then
    if #numbers > most then return {'large'} end
    rows = fetch(table_no, numbers)
  elseif cursor then
    -- One page of a table that is too large for one call.
    local page = redis.call('HSCAN', P .. 'r' .. table_no, cursor, 'COUNT', math.ceil(most / 4))
    cursor = page[1]
    numbers, rows = {}, {}
    for i = 1, #page[2], 2 do
      local n = (i + 1) / 2
      numbers[n], rows[n] = page[2][i], page[2][i + 1]
    end
  else
    if redis.call('HLEN', P .. 'r' .. table_no) > most then return {'large'} end
    local all = redis.call('HGETALL', P .. 'r' .. table_no)
    numbers, rows = {}, {}
    for i = 1, #all, 2 do
      local n = (i + 1) / 2
      numbers[n], rows[n] = all[i], all[i + 1]
    end
  end
  local kept, kept_numbers = {}, {}
  for i = 1, #numbers do
    local row = rows[i]
    if row and (#tests == 0 or passes(row, tests, fills)) then
      kept[#kept + 1] = row
      kept_numbers[#kept_numbers + 1] = numbers[i]
    end
  end
  if limit and limit > 0 and #kept > limit then
    kept, kept_numbers = first(kept, kept_numbers, order, limit, fills)
  end
  found[number] = {all = kept, fills = fills}
  if step[8] then
    answer[number + 1] = summed_up(kept, fills, step[8][1], step[8][2]) or {'no'}
  else
    local had = taken[table_no]
    if not had then had = {}; taken[table_no] = had end
    if columns then
      columns.head = #columns < 16 and string.char(0x90 + #columns)
        or struct.pack('>BH', 0xdc, #columns)
    end
    local out = {}
    for i = 1, #kept do
      local n = kept_numbers[i]
      if not had[n] then
        had[n] = true
        out[#out + 1] = n
        out[#out + 1] = columns and part(kept[i], columns, fills) or kept[i]
      end
    end
    answer[number + 1] = out
  end
  end
end
if commits then answer[#answer + 1] = commits end
if cursor then answer[#answer + 1] = cursor end
return answer
