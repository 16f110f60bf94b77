#!lua
-- Whether a commit whose answer took long is what the master has.
if redis.call('EXISTS', KEYS[1] .. 't:' .. ARGV[1]) == 1 then return {'done'} end
return {'gone'}
