"""The work: one actor a file, from ingest to the outcome."""
