"""The one table of errors: what a status and what a library's exception mean for what to do next."""

import socket
import ssl
from unittest.mock import Mock

import aiohttp
import pytest

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
from worker.rest.meaning import Purpose, classify, translate

KEY = Mock(host="pbx.example.net", port=8088, ssl=True)


@pytest.mark.parametrize(
    ("status", "login", "listing", "detail", "media"),
    [
        (304, StopSource, StopSource, GiveUp, GiveUp),
        (400, StopSource, StopSource, GiveUp, GiveUp),
        (401, StopSource, SessionExpired, SessionExpired, SessionExpired),
        (403, StopSource, StopSource, GiveUp, GiveUp),
        (404, StopSource, StopSource, MediaNotFound, MediaNotFound),
        (408, Retry, Retry, Retry, Retry),
        (409, StopSource, StopSource, NotYet, NotYet),
        (410, StopSource, StopSource, MediaNotFound, MediaNotFound),
        (425, StopSource, StopSource, NotYet, NotYet),
        (429, WaitUntil, WaitUntil, WaitUntil, WaitUntil),
        (500, Retry, Retry, Retry, Retry),
        (501, StopSource, StopSource, GiveUp, GiveUp),
        (502, Retry, Retry, Retry, Retry),
        (503, Retry, Retry, Retry, Retry),
        (504, Retry, Retry, Retry, Retry),
        (520, Retry, Retry, Retry, Retry),
    ],
)
def test_the_table(
    status: int,
    login: type[SourceError],
    listing: type[SourceError],
    detail: type[SourceError],
    media: type[SourceError],
) -> None:
    """Each status, for each purpose; the message is the one given, with a hint where somebody must act."""
    for purpose, expected in zip(Purpose, (login, listing, detail, media), strict=True):
        error = classify(status, purpose, "what")
        assert type(error) is expected, (status, purpose)
        assert str(error).startswith("what")


@pytest.mark.parametrize(("status", "reason"), [(403, GapReason.FORBIDDEN), (400, GapReason.VENDOR_ERROR)])
def test_why_a_recording_is_given_up(status: int, reason: GapReason) -> None:
    """No right to one recording is its own reason; every other refusal is the vendor's error."""
    error = classify(status, Purpose.MEDIA, "what")
    assert isinstance(error, GiveUp)
    assert error.reason is reason


def test_who_must_look_where() -> None:
    """A refusal points to credentials, a missing path to the address."""
    assert "password" in str(classify(401, Purpose.LOGIN, "what"))
    assert "rights" in str(classify(403, Purpose.LIST, "what"))
    assert "`url`" in str(classify(404, Purpose.LIST, "what"))


@pytest.mark.parametrize(
    ("error", "expected", "said"),
    [
        (aiohttp.ServerFingerprintMismatch(b"a", b"b", "h", 1), StopSource, "not the one in `tls_fingerprint`"),
        (aiohttp.ClientConnectorCertificateError(KEY, ssl.SSLCertVerificationError("x")), StopSource, "`ca_file`"),
        (aiohttp.ClientConnectorSSLError(KEY, ssl.SSLError("x")), Retry, "could not speak TLS"),
        (aiohttp.ClientPayloadError("token=x"), Truncated, "ended early"),
        (aiohttp.ClientConnectorError(KEY, OSError(111, "Connection refused")), Retry, r"\(Connection refused\)"),
        (aiohttp.ClientConnectorDNSError(KEY, socket.gaierror("x")), Retry, r"\(ClientConnectorDNSError\)"),
        (aiohttp.ConnectionTimeoutError("token=x"), Retry, "no answer in time"),
        (TimeoutError("token=x"), Retry, "no answer in time"),
        (aiohttp.ServerDisconnectedError("token=x"), Retry, "connection was lost"),
        (OSError("token=x"), Retry, "connection was lost"),
        (aiohttp.InvalidURL("http://x?token=x"), BadAnswer, "no HTTP that can be read"),
        (ValueError("token=x"), BadAnswer, "no HTTP that can be read"),
    ],
)
def test_what_a_library_error_means(error: Exception, expected: type[SourceError], said: str) -> None:
    """Every error of the HTTP library becomes one of ours; its own text, which may hold the URL, stays behind."""
    ours = translate(error, "hq: GET /x")
    assert type(ours) is expected
    assert str(ours).startswith("hq: GET /x: ")
    assert "token=x" not in str(ours)
    with pytest.raises(expected, match=said):
        raise ours
