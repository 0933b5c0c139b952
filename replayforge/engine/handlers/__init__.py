"""What users write and how it is found: registration, results, HTTP endpoints."""
