"""Speed, measured: one file a question, results in README.md. Never asserted in a test."""
