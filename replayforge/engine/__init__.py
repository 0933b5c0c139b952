"""The work: one actor a file, from the door to the outcome."""
