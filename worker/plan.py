"""The time machine: what may be deleted on a date, what matters hold, and what a changed policy would change.

Answered from the listing and the days' indexes; only sidecars that no index has are read. Nothing is written and
nothing asked of the store about locks: what is known of those is what promise, policy and the last audit say. An
expiry run looks at each recording anew (`worker.due`), by the same reckoning: `storage.retention`.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, datetime

from config.retention import Retention
from storage.entry import Entry
from storage.holds import Hold
from storage.retention import Because, Measured, Yardstick, longest
from worker.abreast import abreast
from worker.drift import SLACK
from worker.entries import Day, days, read_day, sources
from worker.runtime import Services

_DAYS_AT_ONCE = 8
_TOLD = 1000

Rule = tuple[bool, str | None]
"""What keeps a recording longest: whether a lock that is longer than all that is promised, and the rule's name."""


Place = tuple[str, date]
"""A source and a day."""


@dataclass(slots=True)
class Figures:
    """Recordings that are alike: of one source, kept by one rule."""

    recordings: int = 0
    deletable: int = 0
    """Whose time is over on the date, and which no matter holds."""
    bytes: int = 0
    """Of the media of those."""
    held: int = 0
    """Whose time is over, and which matters hold."""

    def add(self, other: "Figures") -> None:
        """Add the figures of others."""
        self.recordings += other.recordings
        self.deletable += other.deletable
        self.bytes += other.bytes
        self.held += other.held

    def public(self) -> dict[str, int]:
        """Return the form that `--json` prints."""
        return {"recordings": self.recordings, "deletable": self.deletable, "bytes": self.bytes, "held": self.held}


@dataclass(slots=True)
class Planned:
    """What a date and a policy would come to."""

    on: datetime
    rules: dict[str, dict[Rule | None, Figures]] = field(default_factory=dict)
    """By source, then by what keeps; None for what nothing was ever promised for, which is kept without an end."""
    before: Counter[str] = field(default_factory=Counter)
    """By source, what would be deletable by the policy in force, where another was asked about."""
    matters: Counter[str] = field(default_factory=Counter)
    """By matter, how many recordings it holds whose time is over on the date."""
    longer: Counter[str | None] = field(default_factory=Counter)
    """By rule, how many recordings `retention apply` would extend."""
    shorter: Counter[str | None] = field(default_factory=Counter)
    """By rule, for how many recordings the policy is shorter than what was promised: they stay as they are."""
    used: set[str] = field(default_factory=set)
    """The rules that match some recording."""
    unreadable: list[str] = field(default_factory=list)
    """Sidecars that are none: nobody knows about these."""
    days: int = 0
    read: int = 0
    """Sidecars that had to be read."""

    def add(self, other: "Planned") -> None:
        """Add what came of other days."""
        for source, by_rule in other.rules.items():
            mine = self.rules.setdefault(source, {})
            for rule, figures in by_rule.items():
                mine.setdefault(rule, Figures()).add(figures)
        for name in ("before", "matters", "longer", "shorter"):
            getattr(self, name).update(getattr(other, name))
        self.used |= other.used
        self.unreadable += other.unreadable[: _TOLD - len(self.unreadable)]
        self.days += other.days
        self.read += other.read

    def of(self, source: str) -> Figures:
        """Return the sums of one source."""
        total = Figures()
        for figures in self.rules[source].values():
            total.add(figures)
        return total

    def total(self) -> Figures:
        """Return the sums of all."""
        total = Figures()
        for source in self.rules:
            total.add(self.of(source))
        return total


async def plan(services: Services, on: datetime, policy: Retention | None = None) -> Planned:
    """Return what may be deleted on a date under a policy, by default the one in force. StoreError."""
    return await plan_days(services, on, policy, await places(services))


async def places(services: Services) -> list[Place]:
    """Return all days of all sources."""
    return [(source, day) for source in await sources(services) for day in await days(services, source)]


async def plan_days(services: Services, on: datetime, policy: Retention | None, places: Sequence[Place]) -> Planned:
    """Return what may be deleted of these days of these sources."""
    planner = Planner(services.settings.retention, policy, on, await services.matters.active())

    async def one(place: Place) -> None:
        planner.take(await read_day(services, *place, indexed=True))

    await abreast(one, places, _DAYS_AT_ONCE)
    return planner.planned


class Planner:
    """Counts day by day."""

    def __init__(self, present: Retention, policy: Retention | None, on: datetime, matters: Sequence[Hold]) -> None:
        self.planned = Planned(on)
        self._on = on
        self._matters = matters
        self._yardstick = Yardstick(policy or present)
        self._present = Yardstick(present) if policy else None

    def take(self, day: Day) -> None:
        """Add a day."""
        planned = self.planned
        planned.days += 1
        planned.read += day.read + len(day.unreadable)
        planned.unreadable += day.unreadable[: _TOLD - len(planned.unreadable)]
        figures = planned.rules.setdefault(day.source, {})
        for row in day.rows:
            self._count(figures, row.entry)
        planned.used = self._yardstick.used

    def _count(self, figures: dict[Rule | None, Figures], entry: Entry) -> None:
        today = self._yardstick.measured(entry.source, entry.call, entry.archived_at)
        kept = longest(entry, today)
        rule = (kept.because is Because.LOCK, kept.rule) if kept else None
        mine = figures.get(rule)
        if mine is None:
            mine = figures[rule] = Figures()
        mine.recordings += 1
        if kept is not None and kept.until <= self._on:
            if held := self._held(entry):
                mine.held += 1
                self.planned.matters.update(held)
            else:
                mine.deletable += 1
                mine.bytes += entry.media_bytes
        if today is not None:
            self._compare(entry, today)
        if self._present is not None:
            now = self._present.kept(entry)
            self.planned.before[entry.source] += now is not None and now.until <= self._on and not self._held(entry)

    def _held(self, entry: Entry) -> list[str]:
        return [m.name for m in self._matters if m.scope.covers(entry.source, entry.recording_id, entry.call)]

    def _compare(self, entry: Entry, today: Measured) -> None:
        known = said_before(entry)
        if known is None or today.until > known + SLACK:
            self.planned.longer[today.rule] += 1
        elif today.until < known - SLACK:
            self.planned.shorter[today.rule] += 1


def said_before(entry: Entry) -> datetime | None:
    """Return until when a recording is kept whatever today's policy says; None where nothing was ever said."""
    return max((moment for moment in (entry.promised, entry.locked) if moment), default=None)
