"""What open pages are told: hints over server-sent events, and rates of this moment."""
