"""The conveyor between the store and the workers: it only says "look at event N now"."""
