"""Other job systems, each a module that runs in an environment of its own and knows nothing of ReplayForge."""
