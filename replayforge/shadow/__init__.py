"""Runs recorded history against other code, in a process of its own, without touching anything."""
