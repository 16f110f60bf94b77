-- A master of a cluster serves writes only while no other can have taken its place; this stands
-- before each script that needs that.  ARGV[2]: this node's id, none outside of a cluster;
-- ARGV[3]: its cluster-node-timeout in ms.
--
-- Others declare a master dead when it has been silent for the node timeout, and a majority of
-- the masters must agree.  So one that has heard a majority within TERM node timeouts, and that
-- wasn't halted for longer, is the master still.  Times are this node's own.  The lease lies in
-- a key, as finding out costs more than a commit: "id to from seen", valid until `to`, or none is
-- to be had before `from`; `seen` is when it was looked into, so the process ran then.
local function not_the_master_for_sure()
  local key, id = KEYS[1] .. 'lease', ARGV[2]
  local time = redis.call('TIME')
  local now = time[1] * 1000 + math.floor(time[2] / 1000)
  local lease = redis.call('GET', key)
  -- Another's is of the time before a failover.
  local mine = lease and string.sub(lease, 1, 40) == id
  if mine and now <= tonumber(string.sub(lease, 42, 54)) then return false end
  local from, seen = 0, 0
  if mine then
    from, seen = string.match(lease, ' (%d+) (%d+)$')
    from, seen = tonumber(from), tonumber(seen)
  end
  if now < from then return true end

  -- What a process that was halted finds in its sockets looks as if it were new.  It counts
  -- after GUARD ms: by then the news that another is the master has been read as well.  HOLD:
  -- ms that an election takes which may be under way after a silence.
  local GUARD, TERM, HOLD = 100, 0.7, 2000
  local timeout = tonumber(ARGV[3])
  local term = TERM * timeout
  -- When the process ran for the last time, at least GUARD ago.
  local ran = 0
  if now - seen >= GUARD and now - seen <= term then ran = seen end
  local masters, heard = 0, {}
  for line in string.gmatch(redis.call('CLUSTER', 'NODES'), '[^\n]+') do
    local flags, text, slots = string.match(line, '^%x+ %S+ (%S+) %S+ %d+ (%d+) %d+ %S+(.*)')
    local pong = tonumber(text)
    local myself = string.find(flags, 'myself', 1, true)
    -- Another node sends whole seconds: they are no sign that this one ran then.
    if not myself and pong % 1000 ~= 0 and now - pong >= GUARD and pong > ran then ran = pong end
    if string.find(flags, 'master', 1, true) and string.find(slots, '%d') then
      masters = masters + 1
      if not myself then heard[#heard + 1] = pong end
    end
  end
  table.sort(heard, function(a, b) return a > b end)
  local others = math.floor(masters / 2)  -- with this one they are a majority
  local unsure, to = false, now + term
  from = 0
  if others > 0 then
    local last = heard[others]
    if now - last > term then
      unsure, from, to = true, now + HOLD, 0
    elseif now - ran > term then
      if mine and now - seen < GUARD then return true end
      unsure, to = true, 0
    else
      if now - heard[1] < GUARD and ran < last then last = ran end
      to = last + term
    end
  end
  redis.call('SET', key, string.format('%s %013.0f %.0f %.0f', id, math.floor(to), from, now), 'PX',
    math.max(10000, 2 * timeout))
  return unsure
end
