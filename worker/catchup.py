"""Catching up: what a look leaves for the next one when there was more to archive than it could hand over.

Going back to `lookback` behind the watermark each time would list a long backlog once for every two thousand recordings
of it. So the looks of a lap begin where the last one's work began: that is looked at again, to see that it is settled,
and what comes after it. What must wait stays behind, remembered by the start of the oldest, and holds the watermark.
When a lap is over, after an hour or when nothing is left, a look goes back all the way: for due retries, and for what
turned up late since the lap began. Disposable: without what is remembered here, every look goes back all the way.
"""

import json
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Self

from config.settings import Source
from storage.state import State
from storage.state_records import moment_from
from worker.discovery import FAR, Found
from worker.model import Window

_KEPT = 6 * 3600.0  # seconds, as long as the contents of batches
_LAP = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class CatchUp:
    """What a look leaves for the next one of its kind: regular, or of a span that ends at `until`."""

    since: datetime
    """Where the lap began: its first look's window."""
    begun_at: datetime
    """When that was."""
    start: datetime | None = None
    """Where the next look begins; None when the lap is over."""
    unsettled: datetime = FAR
    """Start of the oldest before `start` that must wait."""
    first: timedelta | None = None
    """How long a span holds what the last look handed over and what the next one will."""
    until: datetime | None = None

    @classmethod
    async def of(cls, state: State, source: Source, until: datetime | None) -> Self | None:
        """Return what was left; None where nothing was."""
        text = await state.unstash(_name(source, until))
        try:
            left = cls._read(json.loads(text or "null"))
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError):  # another version's, or a stranger's
            return None
        return left if left.until == until else None

    @classmethod
    def _read(cls, told: Any) -> Self:
        if not isinstance(told, dict):
            raise TypeError("nothing was left")
        first, times = told.pop("first"), {name: value and moment_from(value) for name, value in told.items()}
        if not (times["since"] and times["begun_at"] and times.get("unsettled", FAR)):
            raise ValueError("a time is missing")
        return cls(first=timedelta(seconds=first) if first else None, **times)

    def goes_on(self, window: Window, now: datetime) -> Window | None:
        """Return what the next look lists instead of the window; None where it is to go back all the way."""
        if self.start is None or now - self.begun_at >= _LAP or (self.until and window.start < self.since):
            return None
        return Window(min(self.start, window.end), window.end)

    def all_the_way(self, window: Window, source: Source) -> Window:
        """Return the window, longer by what may have turned up late since the lap began."""
        if self.until:
            return window
        start = max(self.begun_at - source.lookback, source.start_from or self.since)
        return Window(min(window.start, start), window.end)


async def leave(
    state: State, source: Source, found: Found, window: Window, now: datetime, left: CatchUp | None, *, on: bool,
    until: datetime | None,
) -> None:  # fmt: skip
    """Leave word for the look after this one, which listed the window; `on` where it went on from `left`."""
    lap = left if left and on else CatchUp(window.start, now, until=until)
    if found.resume_at and not found.trouble:
        start = found.to_archive[0].started_at
        waiting = found.unsettled if found.unsettled < start else FAR
        lap = replace(lap, start=start, unsettled=min(lap.unsettled, waiting), first=2 * found.stretch)
    elif left and not until and (on or found.trouble):
        lap = replace(left, start=None)
    else:
        await state.drop(_name(source, until))
        return
    body = {name: value.isoformat() if isinstance(value, datetime) else value for name, value in asdict(lap).items()}
    body["first"] = lap.first.total_seconds() if lap.first else 0.0
    await state.stash(_name(source, until), json.dumps(body), _KEPT)


def _name(source: Source, until: datetime | None) -> str:
    return f"catchup:{source.name}:{'backfill' if until else 'poll'}"
