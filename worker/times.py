"""Times as phone systems write them, read into aware UTC: printed local time, epochs in ids, ISO 8601, durations.

Pure functions; nothing here asks what time it is. What a vendor's fields are called is in `worker/vendors/`.
Text that cannot be read raises ValueError (starts) or gives None (durations, which are optional).
"""

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from worker.model import Window

PRINTED = ("%Y-%m-%d %H:%M:%S",)
"""The printed form of Yeastar, XiVO and Verba's search."""

_OLDEST = datetime(1995, 1, 1, tzinfo=UTC)  # no phone system in use numbered calls before
_AHEAD = timedelta(days=1)  # a phone system's clock may be that wrong
_FURTHEST = timedelta(hours=14)  # the largest offset from UTC in use, Kiritimati's
_GRID = 15 * 60  # every offset in use is a multiple of 15 minutes
_SLACK = 2  # seconds between making the channel and printing its start

_EPOCH = re.compile(r"(?<![\d.])(\d{9,10})\.\d{1,9}(?!\d)")
_HMS = re.compile(r"(?:(\d{1,5}):)?(\d{1,2}):(\d{1,2}(?:\.\d{1,9})?)")
_DURATION = re.compile(
    r"P(?:(?P<days>\d{1,5})D)?(?:T(?:(?P<hours>\d{1,5})H)?(?:(?P<minutes>\d{1,7})M)?(?:(?P<seconds>\d{1,9}(?:\.\d{1,9})?)S)?)?"
)

_LONGEST = 31 * 86400.0  # seconds


def local_to_utc(text: str, zone: ZoneInfo, formats: Sequence[str] = PRINTED) -> tuple[datetime, str | None]:
    """Read a printed local time; return it in UTC, and a sentence where the clock change makes it uncertain.

    In the hour that autumn repeats, the first of the two is taken. ValueError where no format fits.
    """
    naive = _printed(text, formats)
    first, second = (naive.replace(tzinfo=zone, fold=fold) for fold in (0, 1))
    note = None
    if first.utcoffset() != second.utcoffset():
        # the repeated hour has the larger offset first, the skipped one the smaller
        repeated = (first.utcoffset() or timedelta()) > (second.utcoffset() or timedelta())
        note = (
            f"the printed start {text} occurs twice in {zone.key}; the first was taken"
            if repeated
            else f"the printed start {text} does not exist in {zone.key}, where clocks were put forward"
        )
    return _utc(first), note


def epoch_of(unique_id: str, now: datetime) -> datetime | None:
    """Return the call's start from an Asterisk unique id (`1459435465.15089`) anywhere in the text.

    The integer part is Unix seconds, UTC, when the channel was made. None where there is no such number
    between 1995 and a day from `now`.
    """
    return next(iter(_epochs(unique_id, now)), None)


def start_of(
    unique_id: str, printed: str, zone: ZoneInfo, now: datetime, formats: Sequence[str] = PRINTED
) -> tuple[datetime, str | None]:
    """Return a call's UTC start: the epoch in its id where it fits the printed local time, else the latter.

    It fits when the two are at most 14 hours and a multiple of 15 minutes apart, give or take two seconds.
    The second value is a sentence for the sidecar where something is uncertain. ValueError where neither
    can be read.
    """
    epochs = _epochs(unique_id, now)
    try:
        naive = _printed(printed, formats)
    except ValueError:
        if not epochs:
            raise
        return epochs[0], f"the printed start {printed[:40]!r} could not be read; the epoch in the id was taken"
    for epoch in epochs:
        apart = (naive - epoch.replace(tzinfo=None)).total_seconds()
        if abs(apart) <= _FURTHEST.total_seconds() + _SLACK and abs((apart + _GRID / 2) % _GRID - _GRID / 2) <= _SLACK:
            return epoch, _other_zone(epoch, naive, apart, zone)
    start, note = local_to_utc(printed, zone, formats)
    if epochs:
        note = f"the epoch in the id does not fit the printed start {printed[:40]}, which was taken"
    return start, note


def parse_iso(text: str, zone: ZoneInfo | None = None) -> datetime:
    """Read an ISO 8601 date and time; return it in UTC. Without an offset it is in `zone`, or UTC without that.

    Fractions beyond microseconds are cut off. ValueError for anything else, a date without a time included.
    """
    text = text.strip()
    if len(text) <= len("2026-03-05T"):
        raise ValueError(f"{text[:40]!r} is no date and time")
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:  # its words would quote the text to its last character
        raise ValueError(f"{text[:40]!r} is no date and time") from None
    return _utc(moment if moment.tzinfo else moment.replace(tzinfo=zone or UTC))


def hms(text: str) -> float | None:
    """Read `HH:MM:SS`, `MM:SS`, either with a fraction, as seconds; None for anything else, empty text included."""
    found = _HMS.fullmatch(text.strip())
    if not found:
        return None
    hours, minutes, seconds = found.groups(default="0")
    return int(hours) * 3600 + int(minutes) * 60 + float(seconds)


def iso_duration(text: str) -> float | None:
    """Read an ISO 8601 duration of days and less (`PT1M7.5S`) as seconds; None for anything else."""
    found = _DURATION.fullmatch(text.strip())
    if not found or not any(found.groups()):
        return None
    told = {unit: float(value) for unit, value in found.groupdict(default="0").items()}
    return timedelta(**told).total_seconds()


def local_text(moment: datetime, zone: ZoneInfo, form: str = PRINTED[0]) -> str:
    """Write a moment as the phone system's own clock shows it."""
    return moment.astimezone(zone).strftime(form)


def local_span(
    window: Window, zone: ZoneInfo, form: str = PRINTED[0], widen: timedelta = timedelta(hours=1)
) -> tuple[str, str]:
    """Write a window in local time for a vendor's filter, an hour wider at both ends.

    The hour covers the one that autumn repeats and spring skips. Rows outside the window come with it and
    are dropped by `worker.paging`.
    """
    wide = window.widened(widen)
    return local_text(wide.start, zone, form), local_text(wide.end, zone, form)


def _epochs(text: str, now: datetime) -> list[datetime]:
    moments = (datetime.fromtimestamp(int(digits), UTC) for digits in _EPOCH.findall(text))
    return [moment for moment in moments if _OLDEST <= moment <= now + _AHEAD]


def _printed(text: str, formats: Sequence[str]) -> datetime:
    for form in formats:
        try:
            return datetime.strptime(text.strip(), form)  # noqa: DTZ007 - the zone is the caller's to add
        except ValueError:
            continue
    raise ValueError(f"{text[:40]!r} is no time of the form {formats[0]}")


def _other_zone(epoch: datetime, naive: datetime, apart: float, zone: ZoneInfo) -> str | None:
    """Say so when the printed time is not in the configured zone: windows are asked for in that zone."""
    offsets = {naive.replace(tzinfo=zone, fold=fold).utcoffset() for fold in (0, 1)} | {
        epoch.astimezone(zone).utcoffset()
    }
    if any(offset is not None and abs(offset.total_seconds() - apart) <= _SLACK for offset in offsets):
        return None
    return f"the printed start {naive} is {apart / 3600:+.2f} h from UTC, which is not {zone.key}; check `timezone`"


def _utc(moment: datetime) -> datetime:
    try:
        return moment.astimezone(UTC)
    except OverflowError as error:
        raise ValueError(f"{moment.replace(tzinfo=None)} is out of range") from error


def end_of(start: datetime, seconds: float | None) -> datetime | None:
    """Return when a call ended; None where its duration is unknown, negative or longer than any call (a month)."""
    if seconds is None or not 0 <= seconds <= _LONGEST:
        return None
    try:
        return start + timedelta(seconds=seconds)
    except OverflowError:  # beyond the year 9999
        return None
