"""How a source is connected to: its certificate, its own session, its time-outs. Requests are `worker.rest.client`."""

import ssl

import aiohttp

from config import VERSION
from config.settings import Source

TIMEOUTS = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=30)
"""Seconds. No ceiling on the whole: a long recording takes as long as it takes while bytes come."""


def tls_context(source: Source) -> ssl.SSLContext | aiohttp.Fingerprint:
    """Return how the source's certificate is checked: the usual CAs, its `ca_file`, or its pinned fingerprint."""
    if source.tls_fingerprint:
        return aiohttp.Fingerprint(bytes.fromhex(source.tls_fingerprint))
    return ssl.create_default_context(cafile=str(source.ca_file) if source.ca_file else None)


def open_session(source: Source, *, cookies: bool, timeouts: aiohttp.ClientTimeout) -> aiohttp.ClientSession:
    """Return the source's own HTTP session; never shared, so that no cookie or connection of another's is used."""
    jar = aiohttp.CookieJar(unsafe=True) if cookies else aiohttp.DummyCookieJar()
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, ssl=tls_context(source)),
        cookie_jar=jar,
        timeout=timeouts,
        auto_decompress=False,
        trust_env=False,
        headers={"Accept-Encoding": "identity", "User-Agent": f"callvault/{VERSION}"},
    )
