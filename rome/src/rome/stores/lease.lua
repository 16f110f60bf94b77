-- A master of a cluster serves writes only while no other can have taken its place; this stands
-- before each script that needs that.  ARGV[2]: this node's id, none outside of a cluster;
-- ARGV[3]: its cluster-node-timeout in ms.
--
-- Others declare a master dead when it has been silent for the node timeout, and a majority of
-- the masters must agree.  So one that has heard a majority within TERM node timeouts, and that
-- wasn't halted for longer, is the master still.  Times are this node's own.  The lease lies in
-- a key, as finding out costs more than a commit: "id from to seen", valid from `from` to `to`;
-- `seen` is when it was last looked into, so the process ran then.
local function not_the_master_for_sure()
  -- What a process that was halted finds in its sockets looks as if it were new.  It counts
  -- after GUARD ms: by then the news that another is the master has been read as well.  HOLD:
  -- ms that an election takes which may be under way after a silence.
  local GUARD, TERM, HOLD = 100, 0.7, 2000
  local key, id, timeout = KEYS[1] .. 'lease', ARGV[2], tonumber(ARGV[3])
  local time = redis.call('TIME')
  local now = time[1] * 1000 + math.floor(time[2] / 1000)
  local from, to, seen = 0, 0, 0
  local lease = redis.call('GET', key)
  if lease then
    -- Another's: it was the master before a failover.
    local holder, a, b, c = string.match(lease, '^(%x+) (%d+) (%d+) (%d+)$')
    if holder == id then from, to, seen = tonumber(a), tonumber(b), tonumber(c) end
  end
  if now < from then return true end
  if now <= to then return false end

  local term = TERM * timeout
  -- When the process ran for the last time, at least GUARD ago.
  local ran = 0
  if now - seen >= GUARD and now - seen <= term then ran = seen end
  local masters, heard = 0, {}
  for line in string.gmatch(redis.call('CLUSTER', 'NODES'), '[^\n]+') do
    local flags, text, slots = string.match(line, '^%x+ %S+ (%S+) %S+ %d+ (%d+) %d+ %S+(.*)')
    local pong = tonumber(text)
    local mine = string.find(flags, 'myself', 1, true)
    -- Whole seconds are what another node has told: no sign that this one ran then.
    if not mine and pong % 1000 ~= 0 and now - pong >= GUARD and pong > ran then ran = pong end
    if string.find(flags, 'master', 1, true) and string.find(slots, '%d') then
      masters = masters + 1
      if not mine then heard[#heard + 1] = pong end
    end
  end
  table.sort(heard, function(a, b) return a > b end)
  local others = math.floor(masters / 2)  -- with this one they are a majority
  local unsure = false
  from, to = 0, now + term
  if others > 0 then
    local last = heard[others]
    if now - last > term then
      unsure, from, to = true, now + HOLD, 0
    elseif now - ran > term then
      if lease and now - seen < GUARD then return true end
      unsure, to = true, 0
    else
      if now - heard[1] < GUARD and ran < last then last = ran end
      to = last + term
    end
  end
  redis.call('SET', key, string.format('%s %.0f %.0f %.0f', id, from, math.floor(to), now),
    'PX', math.max(10000, 2 * timeout))
  return unsure
end
if ARGV[2] and ARGV[2] ~= '' and not_the_master_for_sure() then return {'lease'} end
