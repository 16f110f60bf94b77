#!lua
-- One transaction: every check first, then every write.  See base.py for the words.
local P = KEYS[1]
local c = cmsgpack.unpack(ARGV[1])
local sub, byte = string.sub, string.byte
local token = P .. 't:' .. c.token
if redis.call('EXISTS', token) == 1 then return {'done'} end
if (redis.call('HGET', P .. 'meta', 'schema') or '0') ~= c.version then return {'schema'} end

local function split(row)
  local width, high, low = byte(row, 1, 3)
  local count = high * 256 + low
  local at, base, last = 4, 3 + width * count + 3, 0
  local parts = {}
  for i = 1, count do
    local stop
    if width == 2 then
      local a, b = byte(row, at, at + 1)
      stop = a * 256 + b
    else
      local a, b, d, e = byte(row, at, at + 3)
      stop = ((a * 256 + b) * 256 + d) * 256 + e
    end
    parts[i] = sub(row, base + last + 1, base + stop)
    last, at = stop, at + width
  end
  return parts
end

local function join(parts)
  local ends, last = {}, 0
  for i = 1, #parts do
    last = last + #parts[i]
    ends[i] = last
  end
  local width = last < 65536 and 2 or 4
  local head = {struct.pack('>BH', width, #parts)}
  local form = width == 2 and '>H' or '>I4'
  for i = 1, #parts do head[i + 1] = struct.pack(form, ends[i]) end
  head[#head + 1] = struct.pack('>BH', 0xdc, #parts)
  return table.concat(head) .. table.concat(parts)
end

local function unique_key(table_no, index) return P .. 'u' .. table_no .. '.' .. index end
local function set_key(table_no, index, data)
  return P .. 'i' .. table_no .. '.' .. index .. ':' .. data
end

-- Entries that this transaction takes away, so that it may give them to another row.
local freed = {}
for _, w in ipairs(c.writes) do
  for _, u in ipairs(w.unique_del) do freed[unique_key(w.t, u[1]) .. ' ' .. u[2]] = w.n end
end

local new_rows = {}
for i, w in ipairs(c.writes) do
  local key = P .. 'r' .. w.t
  if w.op == 'insert' then
    if redis.call('HEXISTS', key, w.n) == 1 then return {'duplicate', w.t, -1, w.n} end
  else
    local row = redis.call('HGET', key, w.n)
    if not row then return {'changed', w.t, w.n} end
    local parts = split(row)
    local fills = {}
    for _, f in ipairs(w.fills) do fills[f[1]] = f[2] end
    for _, x in ipairs(w.checks) do
      if (parts[x[1] + 1] or fills[x[1]] or '\192') ~= x[2] then return {'changed', w.t, w.n} end
    end
    if w.op == 'update' then
      for slot = #parts, w.width - 1 do parts[slot + 1] = fills[slot] or '\192' end
      for _, d in ipairs(w.deltas) do parts[d[1] + 1] = d[2] end
      new_rows[i] = join(parts)
    end
  end
  for _, u in ipairs(w.unique_add) do
    local ukey = unique_key(w.t, u[1])
    local holder = redis.call('HGET', ukey, u[2])
    if holder and holder ~= w.n and freed[ukey .. ' ' .. u[2]] ~= holder then
      return {'duplicate', w.t, u[1], holder}
    end
  end
end

-- Parents of new children must be there still.
for _, e in ipairs(c.exists) do
  local there
  if e[1] == 'row' then there = redis.call('HEXISTS', P .. 'r' .. e[2], e[4])
  elseif e[1] == 'unique' then there = redis.call('HEXISTS', unique_key(e[2], e[3]), e[4])
  else there = redis.call('EXISTS', set_key(e[2], e[3], e[4])) end
  if there == 0 then return {'changed', e[2], 'parent'} end
end
-- Parents that go must not have got children since.
for _, x in ipairs(c.childless) do
  local known = {}
  for _, n in ipairs(x[4]) do known[n] = true end
  local holders
  if x[1] == 'row' then
    holders = redis.call('HEXISTS', P .. 'r' .. x[2], x[5]) == 1 and {x[5]} or {}
  elseif x[1] == 'unique' then
    holders = {redis.call('HGET', unique_key(x[2], x[3]), x[5]) or nil}
  else
    holders = redis.call('SMEMBERS', set_key(x[2], x[3], x[5]))
  end
  for _, n in ipairs(holders) do
    if not known[n] then return {'changed', x[2], n} end
  end
end
-- Tables that a serializable transaction read must not have been written since.
for _, r in ipairs(c.reads) do
  if (redis.call('HGET', P .. 'writes', r[1]) or '0') ~= r[2] then return {'read', r[1]} end
end

local touched = {}
for i, w in ipairs(c.writes) do
  touched[w.t] = true
  for _, u in ipairs(w.unique_del) do
    local ukey = unique_key(w.t, u[1])
    if redis.call('HGET', ukey, u[2]) == w.n then redis.call('HDEL', ukey, u[2]) end
  end
  for _, s in ipairs(w.set_del) do redis.call('SREM', set_key(w.t, s[1], s[2]), w.n) end
end
for i, w in ipairs(c.writes) do
  local key = P .. 'r' .. w.t
  if w.op == 'insert' then redis.call('HSET', key, w.n, w.row)
  elseif w.op == 'update' then redis.call('HSET', key, w.n, new_rows[i])
  else redis.call('HDEL', key, w.n) end
  for _, u in ipairs(w.unique_add) do redis.call('HSET', unique_key(w.t, u[1]), u[2], w.n) end
  for _, s in ipairs(w.set_add) do redis.call('SADD', set_key(w.t, s[1], s[2]), w.n) end
end
for table_no in pairs(touched) do redis.call('HSET', P .. 'writes', table_no, c.token) end
for _, s in ipairs(c.used) do
  if tonumber(redis.call('HGET', P .. 'ids', s[1]) or '0') < tonumber(s[2]) then
    redis.call('HSET', P .. 'ids', s[1], s[2])
  end
end
redis.call('SET', token, 1, 'EX', c.remember)
return {'done'}
