"""Where bytes go and what they are called: S3, keys, sidecars, disposable state. Knows no vendor, no queue."""
