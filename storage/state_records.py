"""What disposable state writes down as text: attempts and moments, and how they are read back.

Both implementations share it, so that a record means the same in Redis and in a file. Whatever cannot be read
back counts as absent: state is rebuilt, never repaired.
"""

import json
from datetime import UTC, datetime, timedelta

from storage.state import Attempt

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def to_micros(moment: datetime) -> int:
    """Return an aware time as microseconds since 1970; exact, and below 2^53 until the year 2255."""
    return (moment - _EPOCH) // _MICROSECOND


def from_micros(text: str | None) -> datetime | None:
    """Return the aware UTC time of so many microseconds since 1970; None for what is no such number."""
    try:
        return None if text is None else _EPOCH + int(text) * _MICROSECOND
    except (ValueError, OverflowError):
        return None


def moment_or_none(value: object) -> datetime | None:
    """Read an ISO time back; None for anything that is not one, or has no offset."""
    try:
        return moment_from(value)
    except (ValueError, OverflowError):
        return None


def moment_from(value: object) -> datetime:
    """Read an ISO time back. ValueError for anything that is not one, or has no offset."""
    if not isinstance(value, str):
        raise ValueError("not a time")  # noqa: TRY004 - one error for all that is no time
    moment = datetime.fromisoformat(value)
    if moment.tzinfo is None:
        raise ValueError("a time without an offset")
    return moment.astimezone(UTC)


def attempt_fields(attempt: Attempt) -> dict[str, object]:
    """Return an attempt as a JSON object."""
    return {
        "first_try_at": attempt.first_try_at.isoformat(),
        "tries": attempt.tries,
        "not_before": attempt.not_before.isoformat(),
        "error": attempt.error,
        "crashes": attempt.crashes,
        "recording": attempt.recording,
    }


def attempt_from(fields: object) -> Attempt | None:
    """Read a JSON object back; None when it is not an attempt."""
    if not isinstance(fields, dict):
        return None
    tries, error, crashes = fields.get("tries"), fields.get("error"), fields.get("crashes")
    if not (isinstance(tries, int) and isinstance(error, str) and isinstance(crashes, int)):
        return None
    recording = fields.get("recording")
    try:
        first, not_before = moment_from(fields.get("first_try_at")), moment_from(fields.get("not_before"))
    except (ValueError, OverflowError):  # overflow: year 1 or 9999 with an offset
        return None
    return Attempt(first, tries, not_before, error, crashes, recording if isinstance(recording, dict) else None)


def attempt_text(attempt: Attempt) -> str:
    """Return an attempt as JSON text in ASCII, whatever characters its error has."""
    return json.dumps(attempt_fields(attempt), separators=(",", ":"))


def attempt_from_text(text: str | None) -> Attempt | None:
    """Read the text back; None when there is none or it is not an attempt."""
    try:
        return attempt_from(json.loads(text)) if text else None
    except (ValueError, RecursionError):
        return None
