"""From the log to a free worker: rows, entries on the stream, claims under leases."""
