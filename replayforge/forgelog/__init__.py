"""The embedded write-ahead log: bytes and offsets, no idea of events."""
