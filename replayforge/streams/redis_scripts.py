"""The few steps that must be one step inside Redis, as Lua (plain enough for 6.2, 7, 8 and Valkey)."""

# Makes the group at 0 where it is missing, and gives the stream a new generation whenever that had to be done or the
# old generation is gone. A key of another type is somebody else's: it is moved to the next free name, never deleted.
# KEYS: entries, generation. ARGV: group, a fresh generation. Returns the generation, and for each key that was moved
# its name, its type and what it is called now.
PREPARE = """
local moved = {}
for place, wanted in ipairs({'stream', 'string'}) do
  local key = KEYS[place]
  local kind = redis.call('TYPE', key).ok
  if kind ~= 'none' and kind ~= wanted then
    local number = 1
    while redis.call('RENAMENX', key, key .. ':moved-aside:' .. number) == 0 do number = number + 1 end
    table.insert(moved, key)
    table.insert(moved, kind)
    table.insert(moved, key .. ':moved-aside:' .. number)
  end
end
local made = redis.pcall('XGROUP', 'CREATE', KEYS[1], ARGV[1], '0', 'MKSTREAM')
if type(made) == 'table' and made.err then
  if not string.find(made.err, 'BUSYGROUP', 1, true) then return made end
  local generation = redis.call('GET', KEYS[2])
  if generation then return {generation, moved} end
end
redis.call('SET', KEYS[2], ARGV[2])
return {ARGV[2], moved}
"""

# Adds entries to a stream that is there, as many as find room; never makes it, since it would come to life without its
# group. The room is looked at in the same step, because several daemons that see the same room would each fill it.
# One script costs a third of as many XADDs in a pipeline. KEYS: entries, generation. ARGV: most entries the stream may
# hold, event id, run, event id, run, ... Returns whether the stream is there, how many were added, and the generation.
PUBLISH = """
local there = redis.call('EXISTS', KEYS[1])
local added = 0
if there == 1 then
  local room = math.max(0, tonumber(ARGV[1]) - redis.call('XLEN', KEYS[1]))
  added = math.min(room, (#ARGV - 1) / 2)
  for number = 1, added do
    redis.call('XADD', KEYS[1], '*', 'id', ARGV[2 * number], 'run', ARGV[2 * number + 1])
  end
end
return {there, added, redis.call('GET', KEYS[2])}
"""

# Acks and deletes. Not MULTI, because Redis refuses to queue anything while it is out of memory, and then the stream
# could never be emptied. KEYS: entries. ARGV: group, handles. Returns how many were there.
REMOVE_ENTRIES = """
redis.call('XACK', KEYS[1], ARGV[1], unpack(ARGV, 2))
return redis.call('XDEL', KEYS[1], unpack(ARGV, 2))
"""

# Removes the consumers that are not named and have nothing pending. In one step, because deleting a consumer that
# has just read an entry would drop that entry. KEYS: entries. ARGV: group, names to keep. Returns how many went.
REMOVE_CONSUMERS = """
local keep = {}
for index = 2, #ARGV do keep[ARGV[index]] = true end
local removed = 0
for _, fields in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
  local consumer = {}
  for index = 1, #fields, 2 do consumer[fields[index]] = fields[index + 1] end
  if consumer.pending == 0 and not keep[consumer.name] then
    redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], consumer.name)
    removed = removed + 1
  end
end
return removed
"""

# Entries that were read but are in no pending list are lost to everyone: their consumer was deleted by hand. When
# nothing is left to read and the stream holds more than is pending, reading begins again at 0; what is truly pending
# then comes a second time, which does no harm. KEYS: entries. ARGV: group. Returns how many orphans there are.
DELIVER_ORPHANS = """
for _, fields in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
  local group = {}
  for index = 1, #fields, 2 do group[fields[index]] = fields[index + 1] end
  if group.name == ARGV[1] then
    local orphans = redis.call('XLEN', KEYS[1]) - group.pending
    local unread = redis.call('XRANGE', KEYS[1], '(' .. group['last-delivered-id'], '+', 'COUNT', 1)
    if orphans > 0 and #unread == 0 then
      redis.call('XGROUP', 'SETID', KEYS[1], ARGV[1], '0')
      return orphans
    end
  end
end
return 0
"""
