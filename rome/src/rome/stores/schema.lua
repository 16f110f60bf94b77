#!lua
-- A change of the schema.
local P = KEYS[1]
local version = redis.call('HGET', P .. 'meta', 'schema') or '0'
local expected, puts, drops, empty = unpack(cmsgpack.unpack(ARGV[1]))
if version ~= expected then return {'schema'} end
for _, t in ipairs(empty) do
  if redis.call('HLEN', P .. 'r' .. t) > 0 then return {'filled'} end
end
for _, name in ipairs(drops) do redis.call('HDEL', P .. 'schema', name) end
for _, put in ipairs(puts) do redis.call('HSET', P .. 'schema', put[1], put[2]) end
-- A version that never was before, not even in data that a crash or a failover has lost:
-- clients may still have the schema that belonged to it.
local now = redis.call('TIME')
local new = math.max(tonumber(version) + 1, tonumber(now[1]) * 1000000 + tonumber(now[2]))
redis.call('HSET', P .. 'meta', 'schema', string.format('%.0f', new))
return {'done', string.format('%.0f', new)}
