-- Rows for statements, in one call.  wire.py has the form of a request.
local P = KEYS[1]
local version, requests, most, holder, lease, length, guard = unpack(cmsgpack.unpack(ARGV[1]))
local call, byte, sub = redis.call, string.byte, string.sub
if (call('HGET', P .. 'meta', 'schema') or '0') ~= version then return {'schema'} end
-- The last commits of the tables that a request watches, and whether they are those that
-- it knows.
local function watch(request)
  local watched, known = request[2], request[3]
  if #watched == 0 then return false, false end
  local commits = call('HMGET', P .. 'writes', unpack(watched))
  for i = 1, #known do
    if (commits[i] or '0') ~= known[i] then return commits, false end
  end
  return commits, #known > 0
end

-- Whether a request wants to hold something.
local function holds(request) return request[4] or request[6] > 0 end

-- What a request wants to hold of the table of a step: rows that it has found, or keys that lead to
-- none.
local function wanted(request, place, found)
  local step, names = request[1][place], {}
  if request[4] then
    for i = 1, #found, 2 do names[#names + 1] = found[i] end
  elseif place <= request[6] and #found == 0 then
    local kind, index, keys = unpack(step[2][1], 1, 3)
    for i, key in ipairs(keys) do names[i] = kind == 'row' and key or 'u' .. index .. ':' .. key end
  end
  return P .. 'h' .. step[1], names
end

-- Whether nobody else holds what a request wants to hold, and for how many ms one may who is
-- to be waited for: no other transaction of the same thread.
local function free(request, found)
  local time = call('TIME')
  local now, left, all = time[1] * 1000 + math.floor(time[2] / 1000), 0, true
  local thread = string.match(holder, '^(.*)%.')
  for place = 1, #request[1] do
    local key, names = wanted(request, place, found[place])
    for start = 1, #names, 2000 do
      local stop = math.min(start + 1999, #names)
      for _, entry in ipairs(call('HMGET', key, unpack(names, start, stop))) do
        local last, other = string.match(entry or '', '^(%d+) (.*)$')
        if other and other ~= holder and tonumber(last) > now then
          all = false
          if string.match(other, '^(.*)%.') ~= thread then left = math.max(left, last - now) end
        end
      end
    end
  end
  return all, left, string.format('%.0f %s', now + lease, holder)
end

-- Hold what a request wants to hold for its transaction: until it ends, or for `lease` ms.
-- Where the node takes no writes it isn't held.
local function hold(request, found, entry)
  for place = 1, #request[1] do
    local key, names = wanted(request, place, found[place])
    for _, name in ipairs(names) do
      local done = redis.pcall('HSET', key, name, entry)
      if type(done) == 'table' and done.err then return 0 end
    end
    if #names > 0 then redis.pcall('PEXPIRE', key, 2 * lease) end
  end
  return 1
end

-- Hold the rows and keys of those of the requests that ask for it.  The third part of an answer
-- says: 1, they are held; 0, they aren't; below 0, another transaction may hold one for so many ms,
-- and the rows aren't given.  Those of the first request come with none of others' that follow;
-- of these all are held or none, so that nobody gets in between them.
local function hold_all(answers)
  local entries, together = {}, true
  for number, answer in ipairs(answers) do
    if answer[1] and holds(requests[number]) then
      local all, left, entry = free(requests[number], answer[1])
      entries[number] = all and entry
      answer[3] = -left
      together = together and (all or (number == 1 and left == 0))
    end
  end
  for number, answer in ipairs(answers) do
    local entry = entries[number]
    if entry and (number == 1 or together) then
      answer[3] = hold(requests[number], answer[1], entry)
    elseif answer[3] and (number > 1 or answer[3] < 0) then
      answer[1] = false
    end
  end
end

-- <shared with scan.lua>
local NIL = '\192'

-- The bytes of column `slot` (from 0) of any row; rows older than the column don't have it.
local function slice(row, slot, defaults)
  local width, high, low = byte(row, 1, 3)
  local count = high * 256 + low
  if slot >= count then return defaults[slot] or NIL end
  local base, first, last = 6 + width * count, 0, 0
  if width == 2 then
    local a, b, c, d = byte(row, 2 + 2 * slot, 5 + 2 * slot)
    if slot > 0 then first = a * 256 + b end
    last = c * 256 + d
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

-- The start of a msgpack array of some columns.
local function head_of(columns)
  local n = #columns
  return n < 16 and string.char(0x90 + n) or struct.pack('>BH', 0xdc, n)
end
-- </shared>

-- The most usual request is for one row, by its number or a unique key.  It needs nothing of
-- what stands below, and making so many functions would take longer than the rest.
local steps = requests[1][1]
local only = #requests == 1 and #steps == 1 and #steps[1][2] == 1 and steps[1]
if only and not only[8] then
  local table_no, filters, columns = only[1], only[3], only[7]
  local kind, index, keys = unpack(only[2][1], 1, 3)
  local simple = keys and #keys == 1 and kind ~= 'set'
  for i = 1, #filters do simple = simple and filters[i][2] == 'in' and #filters[i][3] == 1 end
  if simple then
    local commits, same = watch(requests[1])
    if same then
      local answers = {{false, commits}}
      if give_leases then give_leases(requests, answers, length, guard) end
      return {'rows', answers}
    end
    local number, row = keys[1]
    if kind == 'unique' then number = call('HGET', P .. 'u' .. table_no .. '.' .. index, number) end
    if number then row = call('HGET', P .. 'r' .. table_no, number) end
    local defaults = {}
    for _, default in ipairs(only[4]) do defaults[default[1]] = default[2] end
    for i = 1, #filters do
      row = row and slice(row, filters[i][1], defaults) == filters[i][3][1] and row
    end
    if row and columns then
      local pieces = {head_of(columns)}
      for i = 1, #columns do pieces[i + 1] = slice(row, columns[i], defaults) end
      row = table.concat(pieces)
    end
    local answers = {{{row and {number, row} or {}}, commits}}
    if holder ~= '' then hold_all(answers) end
    if give_leases then give_leases(requests, answers, length, guard) end
    return {'rows', answers}
  end
end

-- <shared with scan.lua>
-- Rows are kept as a list with fields `numbers`, `defaults` and `bases`.  Much is done to them
-- column by column: one loop over the rows for each column, so that what is the same for all
-- rows is done once.  Calls are what costs, so these loops find a column's bytes in place.

-- For each row, how many bytes stand before those of its columns.  Such a row has column
-- `slot` if that is more than `6 + 2 * slot`; `slice` serves rows that haven't, and large
-- ones (0).
local function bases_of(rows)
  local bases = rows.bases
  if not bases then
    bases = {}
    for i = 1, #rows do
      local width, high, low = byte(rows[i], 1, 3)
      bases[i] = width == 2 and high * 512 + low * 2 + 6 or 0
    end
    rows.bases = bases
  end
  return bases
end

-- The bytes of one column of all rows.
local function column(rows, slot)
  local bases, defaults, values = bases_of(rows), rows.defaults, {}
  local at, least, before = 2 + 2 * slot, 6 + 2 * slot, slot == 0 and 0 or 1
  for i = 1, #rows do
    local row, base = rows[i], bases[i]
    if base > least then
      local a, b, c, d = byte(row, at, at + 3)
      values[i] = sub(row, base + (a * 256 + b) * before + 1, base + c * 256 + d)
    else
      values[i] = slice(row, slot, defaults)
    end
  end
  return values
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
  local b, x, y = byte(data, 1, 3)
  if b <= 0x7f then return 1, b end
  if b == 0xc0 then return 0, nil end
  if b >= 0xe0 then return 1, b - 256 end
  if b >= 0xa0 and b <= 0xbf then return 2, sub(data, 2) end
  if b == 0xcc then return 1, x end
  if b == 0xcd then return 1, x * 256 + y end
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

-- Whether a value fulfils `<`, `<=`, `>` or `>=`.
local function compared(data, filter)
  if not filter.rank then filter.rank, filter.bound = decode(filter[3][1]) end
  local op, bound_rank, bound = filter[2], filter.rank, filter.bound
  local r, v = decode(data)
  if r == 0 then return false end
  -- Of another storage class than the bound's: only the class decides.
  if r ~= bound_rank then return (op == '<' or op == '<=') == (r < bound_rank) end
  if op == '<' then return less(r, v, r, bound) end
  if op == '<=' then return not less(r, bound, r, v) end
  if op == '>' then return less(r, bound, r, v) end
  return not less(r, v, r, bound)
end

-- The values of a filter as a set, with those of one byte as numbers too, and the lengths of
-- the others; and what a row's value must be in the set (true) or not (nil).
local function as_set(filter)
  if not filter.set then
    local op, values, set, lengths = filter[2], filter[3], {}, {}
    if op ~= 'in' and op ~= 'not' then set[NIL], set[0xc0] = true, true end
    for i = 1, #values do
      local data = values[i]
      set[data] = true
      if #data == 1 then set[byte(data)] = true else lengths[#data] = true end
    end
    filter.set, filter.lengths = set, lengths
    filter.inside = (op == 'in' or op == 'null') or nil
  end
  return filter.set, filter.lengths, filter.inside
end

local function compares(op) return op == '<' or op == '<=' or op == '>' or op == '>=' end

-- Whether a row passes a filter.
local function passes(row, filter, defaults)
  local op, values = filter[2], filter[3]
  if op == 'any' then
    for _, branch in ipairs(values) do
      local good = true
      for _, part in ipairs(branch) do good = good and passes(row, part, defaults) end
      if good then return true end
    end
    return false
  end
  local data = slice(row, filter[1], defaults)
  if op == 'in' and #values == 1 then return data == values[1] end
  if compares(op) then return compared(data, filter) end
  local set, _, inside = as_set(filter)
  return set[data] == inside
end

-- The first so many rows, as the start of a list that others are added to.
local function begun(rows, count)
  local kept, numbers, bases = {defaults = rows.defaults}, {}, {}
  for i = 1, count do
    kept[i], numbers[i], bases[i] = rows[i], rows.numbers[i], rows.bases[i]
  end
  kept.numbers, kept.bases = numbers, bases
  return kept, numbers, bases, count
end

-- The rows that pass a filter.
local function passing_one(rows, filter)
  local slot, op = filter[1], filter[2]
  local bases, numbers, defaults = bases_of(rows), rows.numbers, rows.defaults
  local least, at, before = 6 + 2 * slot, 2 + 2 * slot, slot == 0 and 0 or 1
  local set, lengths, inside
  if op == 'any' or compares(op) then least = 1e9 else set, lengths, inside = as_set(filter) end
  local kept, kept_numbers, kept_bases, n
  for i = 1, #rows do
    local row, base = rows[i], bases[i]
    local good
    if base > least then
      local a, b, c, d = byte(row, at, at + 3)
      local start, stop = (a * 256 + b) * before, c * 256 + d
      if stop - start == 1 then good = set[byte(row, base + stop)] == inside
      elseif lengths[stop - start] then
        good = set[sub(row, base + start + 1, base + stop)] == inside
      else good = not inside end
    else
      good = passes(row, filter, defaults)
    end
    if kept then
      if good then
        n = n + 1
        kept[n], kept_numbers[n], kept_bases[n] = row, numbers[i], base
      end
    elseif not good then
      kept, kept_numbers, kept_bases, n = begun(rows, i - 1)
    end
  end
  return kept or rows
end

-- The rows that pass all filters but those that are done.
local function passing(rows, filters)
  local slow = {}
  for i = 1, #filters do
    local filter = filters[i]
    if filter.done then
    elseif filter[2] == 'any' or compares(filter[2]) then slow[#slow + 1] = filter
    elseif #rows > 0 then rows = passing_one(rows, filter) end
  end
  for i = 1, #slow do
    if #rows > 0 then rows = passing_one(rows, slow[i]) end
  end
  return rows
end

-- Just these columns of each row, as msgpack arrays.  Columns side by side are taken as one.
local function parts_of(rows, columns)
  local bases, defaults, parts = bases_of(rows), rows.defaults, {}
  local firsts, lasts, n = {}, {}, 0
  for _, slot in ipairs(columns) do
    if n > 0 and slot == lasts[n] + 1 then lasts[n] = slot
    else
      n = n + 1
      firsts[n], lasts[n] = slot, slot
    end
  end
  local pieces = {head_of(columns)}
  for i = 1, #rows do
    local row, base = rows[i], bases[i]
    for j = 1, n do
      local first, last = firsts[j], lasts[j]
      if base > 6 + 2 * last then
        local a, b, c, d
        if first == last then a, b, c, d = byte(row, 2 + 2 * first, 5 + 2 * first)
        else
          a, b = byte(row, 2 + 2 * first, 3 + 2 * first)
          c, d = byte(row, 4 + 2 * last, 5 + 2 * last)
        end
        local start, stop = first > 0 and a * 256 + b or 0, c * 256 + d
        pieces[j + 1] = sub(row, base + start + 1, base + stop)
      else
        local several = {}
        for slot = first, last do several[#several + 1] = slice(row, slot, defaults) end
        pieces[j + 1] = table.concat(several)
      end
    end
    parts[i] = table.concat(pieces)
  end
  return parts
end

-- Counts, sums and extremes; nil where they can't be computed here.
local EXACT = 9007199254740992
local function summed_up(rows, slots, functions)
  -- Sums, by group, of integers; nil where a sum would lose digits.
  local function sums_of(rows, slot, group_of)
    local bases, defaults, sums = bases_of(rows), rows.defaults, {}
    local at, least, before = 2 + 2 * slot, 6 + 2 * slot, slot == 0 and 0 or 1
    for i = 1, #rows do
      local row, base = rows[i], bases[i]
      local kind, p, q, value
      if base > least then
        local a, b = byte(row, at, at + 1)
        local first = base + (a * 256 + b) * before + 1
        kind, p, q = byte(row, first, first + 2)
      end
      if not kind or kind > 0xcd or kind == 0xca or kind == 0xcb then
        local data = slice(row, slot, defaults)
        local r, v = decode(data)
        kind = byte(data, 1)
        -- SQLite adds doubles in a way of its own.
        if r > 1 or kind == 0xca or kind == 0xcb then return nil end
        value = v
      elseif kind <= 0x7f then value = kind
      elseif kind == 0xcc then value = p
      elseif kind == 0xcd then value = p * 256 + q
      elseif kind ~= 0xc0 then return nil end
      if value then
        local g = group_of and group_of[i] or 1
        local sum = (sums[g] or 0) + value
        if sum >= EXACT or sum <= -EXACT or value >= EXACT or value <= -EXACT then return nil end
        sums[g] = sum
      end
    end
    return sums
  end

  -- Least or greatest values, by group, as bytes; nil where one can't be told from another.
  local function extremes_of(rows, slot, group_of, least)
    local best, ranks, values = {}, {}, {}
    for i, data in ipairs(column(rows, slot)) do
      local g = group_of and group_of[i] or 1
      if data ~= NIL and data ~= best[g] then
        local r, v = decode(data)
        if r == 1 and math.abs(v) >= EXACT then return nil end
        local better = not best[g]
        if not better then
          if least then better = less(r, v, ranks[g], values[g])
          else better = less(ranks[g], values[g], r, v) end
        end
        if better then best[g], ranks[g], values[g] = data, r, v end
      end
    end
    return best
  end

  -- How many rows are in each group; with a slot, of those whose column isn't NULL.
  local function counts_of(rows, slot, group_of)
    if not group_of then
      return {slot < 0 and #rows or #passing_one(rows, {slot, 'some', {}})}
    end
    local counts, values = {}, slot >= 0 and column(rows, slot)
    for i = 1, #rows do
      local g = group_of[i]
      if not values or values[i] ~= NIL then counts[g] = (counts[g] or 0) + 1 end
    end
    return counts
  end

  -- For each row the number of its group, and the groups' first rows.
  local function grouped(rows, slots)
    local group_of, firsts, known, n = {}, {}, {}, 0
    local columns = {}
    for j, slot in ipairs(slots) do columns[j] = column(rows, slot) end
    for i = 1, #rows do
      local key = columns[1][i]
      for j = 2, #columns do key = key .. columns[j][i] end
      local g = known[key]
      if not g then
        n = n + 1
        g, known[key], firsts[n] = n, n, rows[i]
      end
      group_of[i] = g
    end
    return group_of, firsts
  end

  local group_of, firsts
  if #slots > 0 then group_of, firsts = grouped(rows, slots) end
  local out = {}
  for g = 1, firsts and #firsts or 1 do out[g] = {} end
  for j, f in ipairs(functions) do
    local name, slot = f[1], f[2]
    if name == '' then
      for g = 1, #out do out[g][j] = slice(firsts[g], slot, rows.defaults) end
    elseif name == 'min' or name == 'max' then
      local best = extremes_of(rows, slot, group_of, name == 'min')
      if not best then return nil end
      for g = 1, #out do out[g][j] = best[g] or NIL end
    else
      local values, none
      if name == 'count' then values, none = counts_of(rows, slot, group_of), 0
      else values = sums_of(rows, slot, group_of) end
      if not values then return nil end
      for g = 1, #out do
        local value = values[g] or none
        out[g][j] = value and cmsgpack.pack(value) or NIL
      end
    end
  end
  return out
end

-- The first rows in an order.  Rows equal to the last one come as well: which of them count
-- is the caller's to say; without any order, those with the lowest numbers come first.
local function first(rows, order, limit)
  local ranks, values, m = {}, {}, #order
  if m == 0 then
    m = 1
    ranks[1], values[1] = {}, {}
    for i = 1, #rows do ranks[1][i], values[1][i] = 1, tonumber(rows.numbers[i]) end
    order = {{0, false}}
  else
    for j = 1, m do
      local r, v = {}, {}
      for i, data in ipairs(column(rows, order[j][1])) do r[i], v[i] = decode(data) end
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
  -- Sorting all would take long: what comes after the last of the best so far is left out.
  local best, n, last, room = {}, 0, nil, 2 * limit + 100
  local function cut()
    table.sort(best, function(x, y) return compare(x, y) < 0 end)
    local stop = math.min(limit, n)
    while stop < n and compare(best[limit], best[stop + 1]) == 0 do stop = stop + 1 end
    for i = n, stop + 1, -1 do best[i] = nil end
    n, last, room = stop, best[limit], 2 * stop + 100
  end
  for i = 1, #rows do
    if not last or compare(i, last) <= 0 then
      n = n + 1
      best[n] = i
      if n >= room then cut() end
    end
  end
  cut()
  local top, numbers = {defaults = rows.defaults, numbers = {}}, rows.numbers
  for i = 1, n do top[i], top.numbers[i] = rows[best[i]], numbers[best[i]] end
  return top
end


-- Rows from a list of numbers and rows by turns.
local function paired(list)
  local rows, numbers = {}, {}
  for i = 1, #list, 2 do
    local n = (i + 1) / 2
    numbers[n], rows[n] = list[i], list[i + 1]
  end
  rows.numbers = numbers
  return rows
end

-- The row numbers of so many entries of an ordered index, from one end or from behind the
-- entry `after`, and the last entry; false: there are no more.
local function stretch(table_no, lookup, after, count)
  local low, high, by_number, walk = unpack(lookup[3], 1, 4)
  local name = by_number == 1 and 'BYSCORE' or 'BYLEX'
  local start, stop = low, high
  if walk < 0 then name, start, stop = 'REVRANGE' .. name, high, low
  else name = 'RANGE' .. name end
  if after then start = '(' .. after end
  local key = P .. 'o' .. table_no .. '.' .. lookup[2]
  local members = call('Z' .. name, key, start, stop, 'LIMIT', 0, count)
  local last = #members == count and members[count]
  if by_number ~= 1 then
    for i = 1, #members do members[i] = string.match(members[i], '%z(%-?%d+)$') end
  end
  return members, last
end

-- How many rows a look-up by an ordered index finds.
local function span(table_no, lookup)
  local ends = lookup[3]
  local command = ends[3] == 1 and 'ZCOUNT' or 'ZLEXCOUNT'
  return call(command, P .. 'o' .. table_no .. '.' .. lookup[2], ends[1], ends[2])
end

-- Seconds.  TIME may stand still while a script runs, as it does from Redis 7.2 on; newer ones have a
-- clock instead.
local os_library = rawget(_G, 'os')
local function clock()
  if os_library then return os_library.clock() end
  local now = call('TIME')
  return now[1] + now[2] / 1000000
end
-- </shared>

-- No other client is served while this runs.  So it gives up when it has looked at so many
-- rows or keys, or has taken so long; the client then asks page by page (scan.lua).
local MOST_S, MOST_BYTES, FEW = 0.008, 2097152, 32
local looked, started = 0, nil
local function too_large(more)
  looked = looked + more
  if looked > most then return true end
  if looked < 300 then return false end
  local now = clock()
  started = started or now
  return now - started > MOST_S
end

-- What each step found.
local found = {}

-- What a join looks for: the distinct values in the rows of an earlier step.
local function joined(source, slots, kind)
  local keys, have, n = {}, {}, 0
  local rows = found[source]
  local whole = column(rows, slots[1])
  for j = 2, #slots do
    for i, more in ipairs(column(rows, slots[j])) do
      whole[i] = whole[i] ~= NIL and more ~= NIL and whole[i] .. more or NIL
    end
  end
  for i = 1, #whole do
    local data = whole[i]
    if data ~= NIL and not have[data] then
      have[data] = true
      if kind == 'row' then
        local class, number = decode(data)
        data = class == 1 and string.format('%.0f', number)
      end
      if data then
        n = n + 1
        keys[n] = data
      end
    end
  end
  return keys
end

local function size(table_no, lookup)
  if lookup[1] == 'order' then return span(table_no, lookup) end
  if lookup[1] ~= 'set' then return #lookup.keys end
  local total = 0
  local key = P .. 'i' .. table_no .. '.' .. lookup[2] .. ':'
  for _, k in ipairs(lookup.keys) do total = total + call('SCARD', key .. k) end
  return total
end

-- Row numbers that a look-up finds, once each, and whether each key has found one; nil: too
-- many.
local function members(table_no, kind, index, keys)
  if kind == 'order' then return stretch(table_no, {kind, index, keys}, false, most), true end
  if kind ~= 'row' and too_large(#keys) then return nil end
  if kind == 'set' and #keys == 1 then
    local key = P .. 'i' .. table_no .. '.' .. index .. ':' .. keys[1]
    if looked + call('SCARD', key) > most then return nil end
    local numbers = call('SMEMBERS', key)
    return numbers, #numbers > 0
  end
  if kind == 'row' and #keys < 2 then return keys, true end
  local numbers, have, count, all = {}, {}, 0, true
  local function add(list)
    all = all and #list > 0
    for i = 1, #list do
      local n = list[i]
      if not n then all = false
      elseif not have[n] then
        have[n] = true
        count = count + 1
        numbers[count] = n
      end
    end
  end
  if kind == 'row' then
    add(keys)
  elseif kind == 'unique' then
    local key = P .. 'u' .. table_no .. '.' .. index
    for start = 1, #keys, 2000 do
      add(call('HMGET', key, unpack(keys, start, math.min(start + 1999, #keys))))
    end
  else
    local key = P .. 'i' .. table_no .. '.' .. index .. ':'
    for i = 1, #keys do
      local set = key .. keys[i]
      if looked + count + call('SCARD', set) > most then return nil end
      add(call('SMEMBERS', set))
      if i % 100 == 0 and too_large(0) then return nil end
    end
  end
  return numbers, all
end

-- Bytes of the rows that were fetched, of each table how many these were, and theirs.
local fetched, fetched_of = 0, {}

-- The rows with these numbers that there are; nil: too many.
local function fetch(table_no, numbers)
  local key, count = P .. 'r' .. table_no, #numbers
  if too_large(count) then return nil end
  local rows = {}
  if count > 0 and count <= FEW then rows = call('HMGET', key, unpack(numbers))
  elseif count > 0 then
    local known = fetched_of[table_no] or {0, 0}
    fetched_of[table_no] = known
    local start = 1
    while start <= count do
      -- The first ones tell how large the others may be.
      local stop = math.min(start + FEW - 1, count)
      if known[1] > 0 then
        if known[2] / known[1] * (count - start + 1) > MOST_BYTES - fetched then return nil end
        stop = math.min(start + 499, count)
      end
      local values, size = call('HMGET', key, unpack(numbers, start, stop)), 0
      for i = 1, stop - start + 1 do
        local row = values[i]
        rows[start + i - 1] = row
        if row then size = size + #row end
      end
      known[1], known[2], fetched = known[1] + stop - start + 1, known[2] + size, fetched + size
      if too_large(0) then return nil end
      start = stop + 1
    end
  end
  rows.numbers = numbers
  for i = 1, count do
    if not rows[i] then
      -- Some are missing.
      local kept, kept_numbers = {}, {}
      for j = 1, count do
        if rows[j] then
          kept[#kept + 1], kept_numbers[#kept_numbers + 1] = rows[j], numbers[j]
        end
      end
      kept.numbers = kept_numbers
      return kept
    end
  end
  return rows
end

-- All rows of a table; nil: too many.
local function whole_table(table_no)
  local key = P .. 'r' .. table_no
  local count = call('HLEN', key)
  if too_large(count) then return nil end
  if count > FEW then
    local size, some = 0, call('HRANDFIELD', key, 4, 'WITHVALUES')
    for i = 2, #some, 2 do size = size + #some[i] end
    if size / 4 * count > MOST_BYTES then return nil end
  end
  return paired(call('HGETALL', key))
end

-- Filters that say no more than a look-up are done.
local function done(lookup, filters, is_done)
  if lookup[3] then
    for _, place in ipairs(lookup[4]) do filters[place + 1].done = is_done end
  end
end

-- The look-up of a step that promises the fewest rows, and how many; nil: it has none.
-- Beside it, those sets whose intersection is what is wanted.
local function chosen(table_no, lookups)
  local best, best_size
  local sets = {}
  for i = 1, #lookups do
    local lookup = lookups[i]
    lookup.keys = lookup[3]
    if not lookup.keys then
      lookup.keys = joined(lookup[4] + 1, lookup[5], lookup[1])
      for _, k in ipairs(lookup[6] or {}) do lookup.keys[#lookup.keys + 1] = k end
    elseif lookup[1] == 'set' and #lookup.keys == 1 then
      sets[#sets + 1] = lookup
    end
    local n = (#lookups > 1 or lookup[1] == 'order') and size(table_no, lookup) or 0
    if not best or n < best_size then best, best_size = lookup, n end
  end
  return best, best_size, sets
end

-- The numbers that a chosen look-up finds; nil: too many.  Its kind, and the look-up itself if
-- each key has found a row.
local function looked_up(table_no, best, best_size, sets, filters)
  if best[1] == 'order' and looked + best_size > most then
    looked = looked + best_size
    return nil
  end
  if #sets > 1 and best_size > 8 and best[1] == 'set' and #best.keys == 1 and best[3] then
    local keys = {}
    for i, lookup in ipairs(sets) do
      keys[i] = P .. 'i' .. table_no .. '.' .. lookup[2] .. ':' .. lookup.keys[1]
      done(lookup, filters, true)
    end
    if too_large(best_size) then return nil end
    return call('SINTER', unpack(keys)), 'set'
  end
  done(best, filters, true)
  local numbers, all = members(table_no, best[1], best[2], best.keys)
  if not numbers then return nil end
  return numbers, best[1], all and best
end

-- The rows that an ordered index leads to, in its order, and that pass the filters: the first
-- `limit` and those equal to the last of them in the tie slots.  nil: there may be more of them
-- behind `budget` entries; with true: it would have to look at too many rows.
local function walked(table_no, lookup, filters, defaults, limit, budget)
  local ties = lookup[3][5]
  local kept = {defaults = defaults, numbers = {}}
  local count, looked_at, n, after = math.max(limit + 1, 16), 0, 0, false
  done(lookup, filters, true)
  while true do
    local numbers, last = stretch(table_no, lookup, after, math.min(count, budget - looked_at))
    local rows = fetch(table_no, numbers)
    if not rows then return nil, true end
    rows.defaults = defaults
    rows = passing(rows, filters)
    for i = 1, #rows do
      n = n + 1
      kept[n], kept.numbers[n] = rows[i], rows.numbers[i]
    end
    looked_at = looked_at + #numbers
    if not last then return kept end
    if n >= limit then
      local differ = #ties == 0
      for _, slot in ipairs(ties) do
        local r, v = decode(slice(kept[limit], slot, defaults))
        local other_r, other_v = decode(slice(kept[n], slot, defaults))
        differ = differ or r ~= other_r or v ~= other_v
      end
      if differ then return kept end
    end
    after = last
    if looked_at >= budget then
      done(lookup, filters, nil)
      -- Or the look-up that comes instead would count as too large.  It takes the time that
      -- is left.
      looked = looked - looked_at
      return nil
    end
    count = math.min(2 * count, 1000)
  end
end

-- The first rows of a step by walking along an index that has them in order, if that promises
-- to look at fewer rows than the best look-up; nil: it doesn't, or with true: it would have to
-- look at too many.
local function walked_first(table_no, lookups, filters, defaults, limit, best, best_size)
  local walk
  for i = 1, #lookups do
    if lookups[i][1] == 'order' and lookups[i][3][4] ~= 0 then walk = lookups[i] end
  end
  if not walk or limit == 0 then return nil end
  local n = best_size
  if n <= 64 or n <= 2 * limit then return nil end
  -- Where it fails, the look-up comes after it: so it is worth half of that.
  local budget = (best == walk or n > most) and most - looked or math.ceil(n / 2)
  budget = math.min(budget, most - looked)
  if budget < 1 then return nil, true end
  return walked(table_no, walk, filters, defaults, limit, budget)
end

-- The values of a step that asks only for numbers of rows, if sets, an ordered index or the
-- table's own length tell them; else nil.
local function counted(table_no, lookups, filters, sums)
  if #sums[1] > 0 then return nil end
  for _, f in ipairs(sums[2]) do
    if f[1] ~= 'count' or f[2] >= 0 then return nil end
  end
  local said, sets, smallest = {}, {}, most
  for _, lookup in ipairs(lookups) do
    if lookup[1] == 'order' and #lookup[4] == #filters then
      local n, values = cmsgpack.pack(span(table_no, lookup)), {}
      for i = 1, #sums[2] do values[i] = n end
      return {values}
    end
    if lookup[1] == 'set' and lookup[3] and (#lookup[3] == 1 or #lookups == 1) then
      for _, place in ipairs(lookup[4]) do said[place + 1] = true end
      for _, data in ipairs(lookup[3]) do
        sets[#sets + 1] = P .. 'i' .. table_no .. '.' .. lookup[2] .. ':' .. data
      end
    end
  end
  for i = 1, #filters do
    if not said[i] then return nil end
  end
  local n = 0
  if #sets == 0 then
    if #lookups > 0 then return nil end
    n = call('HLEN', P .. 'r' .. table_no)
  else
    -- A row has one value in a column, so sets of one index have no rows in common.
    for _, set in ipairs(sets) do
      local size = call('SCARD', set)
      n, smallest = n + size, math.min(smallest, size)
    end
    if #lookups > 1 and #sets > 1 then
      if smallest >= most then return nil end
      n = call('SINTERCARD', #sets, unpack(sets))
    end
  end
  n = cmsgpack.pack(n)
  local values = {}
  for i = 1, #sums[2] do values[i] = n end
  return {values}
end

-- Takes out of earlier steps the rows that no row of this one matches.
local function reduce(number)
  for _, r in ipairs(steps[number][9] or {}) do
    local place, lookup = r[1] + 1, steps[number][2][r[4] + 1]
    -- Where a look-up by these columns has found a row for each value, all have a match.
    if not lookup or found[number].complete ~= lookup then
      local rows = passing_one(found[place], {r[2], 'in', joined(number, {r[3]})})
      if #rows < #found[place] then
        found[place] = rows
        reduce(place)
      end
    end
  end
end

-- The answer to one request; nil: it would have to look at too many rows.
local function answered()
  local answer = {}
  for number, step in ipairs(steps) do
    local table_no, lookups, filters, defaults, order, limit = unpack(step, 1, 6)
    local sums = step[8]
    local by_slot = {}
    for _, f in ipairs(defaults) do by_slot[f[1]] = f[2] end
    local values = sums and counted(table_no, lookups, filters, sums)
    if not values then
      local best, best_size, sets = chosen(table_no, lookups)
      local rows, numbers, kind, lookup, large
      if best then
        rows, large = walked_first(table_no, lookups, filters, by_slot, limit, best, best_size)
        if large then return nil end
        if not rows then
          numbers, kind, lookup = looked_up(table_no, best, best_size, sets, filters)
          if not numbers then return nil end
          rows = fetch(table_no, numbers)
        end
      else
        rows = whole_table(table_no)
      end
      if not rows or too_large(0) then return nil end
      rows.defaults = by_slot
      rows = passing(rows, filters)
      if limit > 0 and #rows > limit then rows = first(rows, order, limit) end
      rows.complete = numbers and #rows == #numbers and lookup
      found[number] = rows
      reduce(number)
      values = sums and (summed_up(rows, sums[1], sums[2]) or {'no'})
    end
    answer[number] = values
  end

  -- Rows of one table come once each over all steps.
  local times, taken = {}, {}
  for _, step in ipairs(steps) do times[step[1]] = (times[step[1]] or 0) + 1 end
  for number, step in ipairs(steps) do
    if not step[8] then
      local rows, columns = found[number], step[7]
      local parts, numbers = columns and parts_of(rows, columns) or rows, rows.numbers
      local had = times[step[1]] > 1 and (taken[step[1]] or {})
      if had then taken[step[1]] = had end
      local out, n = {}, 0
      for i = 1, #rows do
        local row_number = numbers[i]
        if not had or not had[row_number] then
          if had then had[row_number] = true end
          out[n + 1], out[n + 2] = row_number, parts[i]
          n = n + 2
        end
      end
      answer[number] = out
    end
  end
  return answer
end

local answers = {}
for number, request in ipairs(requests) do
  local commits, same = watch(request)
  steps, found = request[1], {}
  local rows = not same and answered()
  if rows == nil then
    if number == 1 then return {'large', looked} end
    break
  end
  answers[number] = {rows, commits}
end
if holder ~= '' then hold_all(answers) end
if give_leases then give_leases(requests, answers, length, guard) end
return {'rows', answers}
