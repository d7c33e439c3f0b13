"""How long a source asks us to wait, in the dialects seen: seconds, an HTTP date, an epoch in (milli)seconds."""

import contextlib
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

MAX_WAIT = 3600.0
"""No source makes us wait longer than this at a time, in seconds: a typo there must not silence it for a year."""

_MILLISECONDS_FROM = 1e11
"""An epoch above this is in milliseconds: in seconds it would be the year 5138 (Bandwidth's page says Unix
timestamp, its example 1479308598680 is milliseconds)."""


def retry_after(headers: Mapping[str, str], now: datetime) -> float | None:
    """Return seconds to wait, between 0 and `MAX_WAIT`; None where no header says so.

    `Retry-After` comes in seconds or as an HTTP date (RFC 9110, 10.2.3), `X-RateLimit-Reset` as an epoch.
    """
    told = headers.get("Retry-After", "")
    with contextlib.suppress(ValueError):  # not a number: perhaps a date
        return _clamp(float(told))
    with contextlib.suppress(ValueError, OverflowError):  # neither: as if it were not there
        moment = parsedate_to_datetime(told)
        return _clamp((moment.replace(tzinfo=moment.tzinfo or UTC) - now).total_seconds())
    with contextlib.suppress(ValueError):
        return _clamp(_epoch_seconds(float(headers.get("X-RateLimit-Reset", ""))) - now.timestamp())
    return None


def _epoch_seconds(value: float) -> float:
    return value / 1000 if value > _MILLISECONDS_FROM else value


def _clamp(seconds: float) -> float:
    if math.isnan(seconds):
        raise ValueError("not a number of seconds")
    return min(max(seconds, 0.0), MAX_WAIT)
