"""S3, spoken over HTTP of our own: small enough for the hot path, strict enough for evidence.

`store` puts it together; `transport` sends, retries and `signing` signs; `refusals` says what went wrong.
"""
