"""Speaking HTTP to phone systems: one client, one table of errors, one way to log in, decode and redact."""
