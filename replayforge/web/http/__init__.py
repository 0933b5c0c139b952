"""The port: connections, bodies, sessions, the guard before every handler, and problems."""
