#!lua flags=no-writes
-- All rows of a table that has no more than `most`, and its last commit, as of one moment.
local P = KEYS[1]
local t, most = unpack(cmsgpack.unpack(ARGV[1]))
local key = P .. 'r' .. t
if redis.call('HLEN', key) > most then return {'large'} end
return {redis.call('HGET', P .. 'writes', t) or '0', redis.call('HGETALL', key)}
