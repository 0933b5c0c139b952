"""The status page: views as values, rendered on the server."""
