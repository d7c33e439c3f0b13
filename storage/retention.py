"""What the policy promises for one call: until when it is kept, and by which rule. Pure.

The clock starts at the call's end, at its start where the end is unknown or not to be believed, and now where both
are. Of several rules that match, the one that ends last decides; where none matches, the default.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import NamedTuple

from config.retention import LockMode, Period, Retention, Rule
from storage.entry import Entry
from storage.lock import Lock
from storage.sidecar import CallFacts, RetentionFacts

_BELIEVED = timedelta(days=1)  # a phone system's clock may be ahead, not by more
_MOST_KNOWN = 100_000  # kinds of calls; a few dozen megabytes
_LOOK: dict[str, Callable[[CallFacts], object]] = {
    "source": lambda _: None,  # is a part of what is remembered in any case
    "queue": lambda call: call.queue,
    "direction": lambda call: call.direction,
    "number": lambda call: (call.from_, call.to),
    "agent": lambda call: call.agent,
}


@dataclass(frozen=True, slots=True)
class Promise:
    """What is frozen into a recording's sidecar."""

    mode: LockMode
    until: datetime
    """In UTC, of whole seconds."""
    facts: RetentionFacts

    def lock(self, now: datetime) -> Lock | None:
        """Return the lock to write with; None where the promise is over, or nearly, before anything is written."""
        lock = Lock(self.mode, self.until)
        return lock if lock.lasts(now) else None


class Measured(NamedTuple):
    """What a policy says of one call."""

    until: datetime
    rule: str | None
    """The rule that decides; None for the default."""
    keep: Period
    begins: datetime
    """When the clock starts."""


class Because(StrEnum):
    """What keeps a recording longest."""

    PROMISE = "promise"  # what its sidecar froze
    POLICY = "policy"  # what today's policy says
    LOCK = "lock"  # what an earlier policy had it locked for


@dataclass(frozen=True, slots=True)
class Kept:
    """Until when a recording is to be kept, and why not shorter."""

    until: datetime
    because: Because
    rule: str | None
    """The rule of the promise or the policy; None for the default, and for a lock."""


class Yardstick:
    """A policy that is asked about many calls: which rules match is found out once for all that look alike to them."""

    def __init__(self, policy: Retention) -> None:
        self.policy = policy
        self._looks = [_LOOK[name] for name in sorted({name for rule in policy.rules for name in rule.match})]
        self._known: dict[tuple[object, ...], tuple[Rule, ...]] = {}
        self.used: set[str] = set()
        """The names of all rules that matched one of the calls asked about."""

    def matching(self, source: str, call: CallFacts) -> tuple[Rule, ...]:
        """Return the rules that match a call."""
        key = (source, *[look(call) for look in self._looks])
        found = self._known.get(key)
        if found is None:
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            found = self._known[key] = tuple(rule for rule in self.policy.rules if matches(rule, source, call))
            self.used.update(rule.name for rule in found)
        return found

    def measured(self, source: str, call: CallFacts, now: datetime) -> Measured | None:
        """Return what the policy says of a call, as of now; None where it has no mode."""
        if self.policy.mode is None or self.policy.default is None:
            return None
        begins = _clock_starts(call, now)
        best, keep, until = None, self.policy.default, None
        for rule in self.matching(source, call):
            ends = rule.keep.after(begins)
            if until is None or ends > until:
                best, keep, until = rule, rule.keep, ends
        return Measured(_whole_seconds(until or keep.after(begins)), best.name if best else None, keep, begins)

    def kept(self, entry: Entry) -> Kept | None:
        """Return how long a recording is kept: see the function of this name."""
        return longest(entry, self.measured(entry.source, entry.call, entry.archived_at))


def longest(entry: Entry, today: Measured | None) -> Kept | None:
    """Return what keeps a recording longest, `today` being what the policy says of it."""
    found = None if entry.promised is None else Kept(entry.promised, Because.PROMISE, entry.rule)
    if today is not None and (found is None or today.until > found.until):
        found = Kept(today.until, Because.POLICY, today.rule)
    if entry.locked is not None and (found is None or entry.locked > found.until):
        found = Kept(entry.locked, Because.LOCK, None)
    return found


def promised(policy: Retention, source: str, call: CallFacts, now: datetime) -> Promise | None:
    """Return what is promised for a call of a source, as of now; None where the policy has no mode."""
    found = Yardstick(policy).measured(source, call, now)
    if found is None or policy.mode is None:
        return None
    return Promise(
        mode=policy.mode,
        until=found.until,
        facts=RetentionFacts(rule=found.rule, keep=str(found.keep), counted_from=found.begins, policy=policy.version),
    )


def kept(policy: Retention, entry: Entry) -> Kept | None:
    """Return how long a recording is kept: by its promise, by today's policy or by its lock, whichever is longest.

    None where nothing was ever promised: it is kept, without a date. Matters are not looked at.
    """
    return Yardstick(policy).kept(entry)


def record_lock(policy: Retention, now: datetime) -> Lock | None:
    """Return the lock of what is put on record about recordings: as of one that ends now, by the longest promise."""
    until = policy.last_end(now.astimezone(UTC))
    return Lock(policy.mode, _whole_seconds(until)) if policy.mode and until else None


def matches(rule: Rule, source: str, call: CallFacts) -> bool:
    """Tell whether every pattern of a rule matches the call; upper and lower case differ.

    `number` is that of either party. What the phone system did not tell is matched by "*" alone.
    """
    return fits(rule.match, source, call)


def fits(patterns: Mapping[str, str], source: str, call: CallFacts) -> bool:
    """Tell whether all patterns, named as in `config.retention.MATCHED`, match the call."""
    told: dict[str, tuple[str | None, ...]] = {
        "source": (source,),
        "queue": (call.queue,),
        "direction": (call.direction,),
        "number": (call.from_, call.to),
        "agent": (call.agent,),
    }
    return all(any(_fits(value, pattern) for value in told[key]) for key, pattern in patterns.items())


def _fits(value: str | None, pattern: str) -> bool:
    return fnmatchcase(value, pattern) if value else pattern == "*"


def _clock_starts(call: CallFacts, now: datetime) -> datetime:
    for moment in (call.ended_at, call.started_at):
        if moment is not None and moment <= now + _BELIEVED:
            return moment.astimezone(UTC)
    return now.astimezone(UTC)


def _whole_seconds(moment: datetime) -> datetime:
    """Round up: stores keep seconds, and what is read back must not look shorter than what was promised."""
    return moment if moment.microsecond == 0 else moment.replace(microsecond=0) + timedelta(seconds=1)
