"""How long recordings are kept: the policy of the configuration, and the calendar it counts by. Pure values.

Reading it from the file is `config.retention_rules`; what it means for one call is `storage.retention`.
"""

import calendar
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

MATCHED = ("source", "queue", "direction", "number", "agent")
"""What a rule may look at."""

_DAYS_OF_A_MONTH = 365.2425 / 12


class LockMode(StrEnum):
    """How strongly an object is locked: by S3's rules, in lower case."""

    GOVERNANCE = "governance"  # who has the right to bypass it may delete early
    COMPLIANCE = "compliance"  # nobody may, and nobody can take that back


@dataclass(frozen=True, slots=True)
class Period:
    """A span of the calendar: months (a year is twelve) or days."""

    months: int = 0
    days: int = 0

    def after(self, moment: datetime) -> datetime:
        """Return the moment this span later, at the same time of day.

        Where the month has no such day it is the month's last: a year after 29 February is 28 February.
        """
        year, month = divmod(moment.year * 12 + moment.month - 1 + self.months, 12)
        day = min(moment.day, calendar.monthrange(year, month + 1)[1])
        return moment.replace(year=year, month=month + 1, day=day) + timedelta(days=self.days)

    @property
    def about(self) -> float:
        """Days, a month at its average: to compare two spans without a date in hand."""
        return self.months * _DAYS_OF_A_MONTH + self.days

    def __str__(self) -> str:
        if self.months:
            return f"{self.months}mo" if self.months % 12 else f"{self.months // 12}y"
        return f"{self.days}d"


@dataclass(frozen=True, slots=True)
class Rule:
    """One of `[[retention.rules]]`: calls that all patterns match are kept this long."""

    name: str
    match: Mapping[str, str]
    """Shell-style patterns by what they look at, see `MATCHED`; what is not there matches every call."""
    keep: Period


@dataclass(frozen=True, slots=True)
class Retention:
    """The whole policy. Without a mode nothing is promised and nothing is locked."""

    mode: LockMode | None = None
    accept_compliance_lock: bool = False
    default: Period | None = None
    """For calls that no rule matches; always there when there is a mode."""
    max: Period = Period(months=360)
    """No rule may promise more, and so no lock may last longer."""
    expire: bool = False
    """Whether what is due is deleted, with a certificate."""
    expire_at_most: int = 10_000
    """Recordings that one expiry run deletes at most."""
    rules: tuple[Rule, ...] = field(default=())

    def first_end(self, begins: datetime) -> datetime | None:
        """Return when a call whose clock starts then may be over at the earliest; None without a mode."""
        return min(self._ends(begins), default=None)

    def last_end(self, begins: datetime) -> datetime | None:
        """Return until when a call whose clock starts then is kept at the longest; None without a mode."""
        return max(self._ends(begins), default=None)

    def _ends(self, begins: datetime) -> list[datetime]:
        if self.mode is None or self.default is None:
            return []
        return [period.after(begins) for period in (self.default, *(rule.keep for rule in self.rules))]

    @property
    def version(self) -> str:
        """Twelve hex digits that change whenever some call may be kept differently; the order of rules is no change."""
        told = {
            "mode": self.mode,
            "default": str(self.default),
            "rules": sorted([rule.name, sorted(rule.match.items()), str(rule.keep)] for rule in self.rules),
        }
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:12]
