"""HTTP in, HTML and JSON out; it asks the engine, and holds values of the floors below, never their connections."""
