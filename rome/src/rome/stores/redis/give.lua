-- Give leases (leases.lua) of the tables that requests watch, where they ask for it: the fourth part
-- of an answer is 1 then.  Only who is sure to be the master gives any, and nobody in the first
-- `guard` ms in which there may be leases: by then a server that takes this one's place knows of it.
local function give(requests, answers, length, guard)
  if ARGV[5] == '' or (ARGV[2] ~= '' and not_the_master_for_sure()) then return end
  local key, now = KEYS[1] .. 'leases', clock()
  local since = redis.call('HGET', KEYS[1] .. 'meta', 'leases')
  if not since then
    redis.call('HSET', KEYS[1] .. 'meta', 'leases', string.format('%.0f', now))
    redis.call('HSET', key, 'run', ARGV[5])
    since = now
  end
  know_leases(now)
  if now - since < guard then return end
  for number, answer in ipairs(answers) do
    local tables, free = requests[number][2], requests[number][5]
    for _, t in ipairs(free and tables or {}) do
      free = free and tonumber(redis.call('HGET', key, 'no' .. t) or 0) <= now
    end
    if free then
      for _, t in ipairs(tables) do
        local entry = redis.call('HGET', key, t)
        local stop = math.max(now + length, tonumber(entry and string.match(entry, '^%d+') or 0))
        redis.call('HSET', key, t, string.format('%.0f %d', stop, length))
      end
      answer[3], answer[4] = answer[3] or 0, 1
    end
  end
end

-- Where the node takes no writes there are none.
local function give_leases(...) pcall(give, ...) end
