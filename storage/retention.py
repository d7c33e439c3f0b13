"""What the policy promises for one call: until when it is kept, and by which rule. Pure.

The clock starts at the call's end, at its start where the end is unknown or not to be believed, and now where both
are. Of several rules that match, the one that ends last decides; where none matches, the default.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from fnmatch import fnmatchcase

from config.retention import LockMode, Retention, Rule
from storage.entry import Entry
from storage.lock import Lock
from storage.sidecar import CallFacts, RetentionFacts

_BELIEVED = timedelta(days=1)  # a phone system's clock may be ahead, not by more


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


def promised(policy: Retention, source: str, call: CallFacts, now: datetime) -> Promise | None:
    """Return what is promised for a call of a source, as of now; None where the policy has no mode."""
    if policy.mode is None or policy.default is None:
        return None
    begins = _clock_starts(call, now)
    best, keep = None, policy.default
    for rule in (rule for rule in policy.rules if matches(rule, source, call)):
        if best is None or rule.keep.after(begins) > keep.after(begins):
            best, keep = rule, rule.keep
    return Promise(
        mode=policy.mode,
        until=_whole_seconds(keep.after(begins)),
        facts=RetentionFacts(
            rule=best.name if best else None, keep=str(keep), counted_from=begins, policy=policy.version
        ),
    )


def lock_of_records(policy: Retention, now: datetime) -> Lock | None:
    """Return the lock of what is on record about recordings, such as matters: the longest that is promised to any.

    It counts from now; None where the policy has no mode.
    """
    if policy.mode is None or policy.default is None:
        return None
    longest = max(keep.after(now) for keep in (policy.default, *(rule.keep for rule in policy.rules)))
    return Lock(policy.mode, _whole_seconds(longest.astimezone(UTC)))


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


def kept(policy: Retention, entry: Entry) -> Kept | None:
    """Return how long a recording is kept: by its promise, by today's policy or by its lock, whichever is longest.

    None where nothing was ever promised: it is kept, without a date. Matters are not looked at.
    """
    said = []
    if entry.promised is not None:
        said.append(Kept(entry.promised, Because.PROMISE, entry.rule))
    today = promised(policy, entry.source, entry.call, entry.archived_at)
    if today is not None:
        said.append(Kept(today.until, Because.POLICY, today.facts.rule))
    if entry.locked is not None:
        said.append(Kept(entry.locked, Because.LOCK, None))
    return max(said, key=lambda one: one.until, default=None)


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
