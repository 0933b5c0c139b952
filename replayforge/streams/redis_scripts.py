"""The few steps that must be one step inside Redis, as Lua (plain enough for 6.2, 7, 8 and Valkey)."""

# Makes the group at 0 where it is missing, and gives the stream a new generation whenever that had to be done or
# the old generation is gone. KEYS: entries, generation. ARGV: group, a fresh generation. Returns the generation.
PREPARE = """
local made = redis.pcall('XGROUP', 'CREATE', KEYS[1], ARGV[1], '0', 'MKSTREAM')
if type(made) == 'table' and made.err then
  if not string.find(made.err, 'BUSYGROUP', 1, true) then return made end
  local generation = redis.call('GET', KEYS[2])
  if generation then return generation end
end
redis.call('SET', KEYS[2], ARGV[2])
return ARGV[2]
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
