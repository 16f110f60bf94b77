#!lua
-- A change of the schema.
local P = KEYS[1]
local version = redis.call('HGET', P .. 'meta', 'schema') or '0'
local expected, puts, drops, empty, token, remember = unpack(cmsgpack.unpack(ARGV[1]))
-- Sent again, as its answer was lost: it isn't done again.
local done = redis.call('GET', P .. 't:' .. token)
if done then return {'done', done} end
if version ~= expected then return {'schema'} end
for _, t in ipairs(empty) do
  if redis.call('HLEN', P .. 'r' .. t) > 0 then return {'filled'} end
end
for _, name in ipairs(drops) do redis.call('HDEL', P .. 'schema', name) end
for _, put in ipairs(puts) do redis.call('HSET', P .. 'schema', put[1], put[2]) end
-- A version that never was before, not even in data that a crash or a failover has lost:
-- clients may still have the schema that belonged to it.  It begins with the time at which
-- the database was made: clients that knew an earlier one forget the numbers they had from it.
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local born, last = string.match(version, '^(%d+)%.(%d+)$')
local new = string.format('%.0f', math.max(tonumber(last or 0) + 1, now))
new = (born or new) .. '.' .. new
redis.call('HSET', P .. 'meta', 'schema', new)
redis.call('SET', P .. 't:' .. token, new, 'EX', remember)
return {'done', new}
