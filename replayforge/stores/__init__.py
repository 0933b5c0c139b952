"""What is settled: the rows of events, attempts and cursors."""
