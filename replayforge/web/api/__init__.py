"""The JSON API: ingest, events, replays, operations, and its OpenAPI description."""
