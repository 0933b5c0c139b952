"""The demo: a checkout as the workload, a daemon that is crashed and killed over it, the proof that nothing is lost."""
