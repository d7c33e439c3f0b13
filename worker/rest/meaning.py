"""What an answer means: the one table from a status, or an HTTP library's exception, to what to do next.

Errors inside answers with status 200 are the connectors' business; sending is `worker.rest.client`.
"""

from enum import StrEnum

import aiohttp

from storage.sidecar import GapReason
from worker.errors import (
    BadAnswer,
    GiveUp,
    MediaNotFound,
    NotYet,
    Retry,
    SessionExpired,
    SourceError,
    StopSource,
    Truncated,
    WaitUntil,
)

DEFAULT_WAIT = 1.0
"""Seconds to wait after a 429 that does not say for how long."""


class Purpose(StrEnum):
    """What a request is for: the same status means different things on the way to a login and to a recording."""

    LOGIN = "login"
    LIST = "listing"
    DETAIL = "detail"
    MEDIA = "media"


WHOLE_SOURCE = frozenset({Purpose.LOGIN, Purpose.LIST})
"""What concerns all recordings: a refusal there stops the source, elsewhere it costs one recording."""


def classify(status: int, purpose: Purpose, what: str) -> SourceError:
    """Return what a status means for a purpose: the one table of errors."""
    if status == 401 and purpose is not Purpose.LOGIN:
        return SessionExpired(what)
    if status == 429:
        return WaitUntil(what, DEFAULT_WAIT)
    if status in (408, 500, 502, 503, 504) or status >= 505:
        return Retry(what)
    if purpose in WHOLE_SOURCE:
        hint = "check user, password and rights" if status in (401, 403) else "check `url` and the vendor's own keys"
        return StopSource(f"{what}; {hint}")
    if status in (409, 425):
        return NotYet(what)
    if status in (404, 410):
        return MediaNotFound(what)
    if status == 403:
        return GiveUp(what, GapReason.FORBIDDEN)
    return GiveUp(what, GapReason.VENDOR_ERROR)


def translate(error: Exception, what: str) -> SourceError:
    """Turn an HTTP library's error into one of ours; its text is not passed on, it may hold the URL."""
    name = type(error).__name__
    match error:
        case aiohttp.ServerFingerprintMismatch():
            return StopSource(f"{what}: the certificate is not the one in `tls_fingerprint`")
        case aiohttp.ClientConnectorCertificateError():
            return StopSource(
                f"{what}: the certificate could not be verified; give the CA in `ca_file` or pin `tls_fingerprint`"
            )
        case aiohttp.ClientConnectorSSLError():
            return Retry(f"{what}: could not speak TLS ({name}); is `url` https, and its port right?")
        case aiohttp.ClientPayloadError():
            return Truncated(f"{what}: the answer ended early")
        case aiohttp.ClientConnectorError():
            why = error.os_error.strerror or name
            return Retry(f"{what}: could not connect ({why}); is `url` right and the host up?")
        case TimeoutError():
            return Retry(f"{what}: no answer in time ({name})")
        case aiohttp.ClientConnectionError() | OSError():
            return Retry(f"{what}: the connection was lost ({name})")
        case _:
            return BadAnswer(f"{what}: the answer is no HTTP that can be read ({name})")
