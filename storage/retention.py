"""What the policy promises for one call: until when it is kept, and by which rule. Pure.

The clock starts at the call's end, at its start where the end is unknown or not to be believed, and now where both
are. Of several rules that match, the one that ends last decides; where none matches, the default.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase

from config.retention import LockMode, Retention, Rule
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


def matches(rule: Rule, source: str, call: CallFacts) -> bool:
    """Tell whether every pattern of a rule matches the call; upper and lower case differ.

    `number` is that of either party. What the phone system did not tell is matched by "*" alone.
    """
    told: dict[str, tuple[str | None, ...]] = {
        "source": (source,),
        "queue": (call.queue,),
        "direction": (call.direction,),
        "number": (call.from_, call.to),
        "agent": (call.agent,),
    }
    return all(any(_fits(value, pattern) for value in told[key]) for key, pattern in rule.match.items())


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
