"""From a request to a durable record: ids, duplicates, the window of events without a row."""
