"""What keeps the promises after crashes: chores, leases, peers, recovery at the start."""
