"""S3, spoken over aiohttp: small enough for the hot path, strict enough for evidence.

`store` puts it together; `transport` sends, retries and `signing` signs; `refusals` says what went wrong.
"""
