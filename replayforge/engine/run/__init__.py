"""From a claimed event to a committed outcome: workers, attempts, and what user code leaves behind."""
