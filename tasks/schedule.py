"""When what is due: cron lines in a source's own zone, and the scheduler's entries made from the settings.

Celery's crontab knows one zone for all and has had trouble with clock changes; `cronsim` follows Debian's cron,
where a job at 02:30 runs once on the night the hour is repeated and at 03:00 on the night it is skipped.
"""

import itertools
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from celery.schedules import BaseSchedule, schedstate
from cronsim import CronSim

from config.settings import Settings
from tasks.names import AUDIT, CANARY, EXPIRE, HOLDS, HOUSEKEEPING, POLL

_ONCE_A_MINUTE = "* * * * *"
_ONCE_A_DAY = "17 3 * * *"  # off the full hour, when everybody else's jobs start
_ONCE_A_NIGHT = "47 1 * * *"
_ONCE_A_MORNING = "41 4 * * *"
_LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)
_LOOK_AHEAD = 64  # ticks among which the shortest interval is looked for
_LEAST_EXPIRY = 30.0  # seconds; less, and clocks a little apart would expire every message


class CronSchedule(BaseSchedule):
    """A cron line in a zone (UTC when there is none), for Celery beat. Pickles, and equals one that says the same."""

    def __init__(self, line: str, zone: ZoneInfo | None = None, nowfun: Callable[[], datetime] | None = None) -> None:
        super().__init__(nowfun=nowfun)
        self._clock = nowfun
        self.line = line
        self.zone = zone

    def next_after(self, moment: datetime) -> datetime:
        """Return the first tick later than `moment`, in UTC. The line is one that `config.load` accepts."""
        ticks = (tick.astimezone(UTC) for tick in CronSim(self.line, moment.astimezone(self.zone or UTC)))
        # inside a repeated hour cronsim's first answer may be the earlier of the two
        return next(due for due in ticks if due > moment)

    def remaining_estimate(self, last_run_at: datetime) -> timedelta:
        """Return the time until the tick after `last_run_at`; negative when it has passed."""
        now = self.now()
        # a clock that was set back must not silence the schedule until it has caught up
        return self.next_after(min(last_run_at, now)) - now

    def is_due(self, last_run_at: datetime) -> schedstate:
        """Return whether a tick has passed since `last_run_at`, and in how many seconds to ask again."""
        remaining = self.remaining_estimate(last_run_at).total_seconds()
        if remaining > 0:
            return schedstate(is_due=False, next=remaining)
        return schedstate(is_due=True, next=self.remaining_estimate(self.now()).total_seconds())

    def shortest_interval(self, now: datetime) -> float:
        """Return the least number of seconds between two of the coming ticks."""
        ticks = [now]
        for _ in range(_LOOK_AHEAD):
            ticks.append(self.next_after(ticks[-1]))
        return min((later - tick).total_seconds() for tick, later in itertools.pairwise(ticks[1:]))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CronSchedule) and (self.line, self.zone) == (other.line, other.zone)

    def __hash__(self) -> int:
        return hash((self.line, self.zone))

    def __repr__(self) -> str:
        return f"<cron: {self.line} {self.zone or 'UTC'}>"

    def __reduce__(self) -> tuple[type["CronSchedule"], tuple[str, ZoneInfo | None, Callable[[], datetime] | None]]:
        return type(self), (self.line, self.zone, self._clock)


def beat_schedule(settings: Settings, now: datetime) -> dict[str, dict[str, Any]]:
    """Return the scheduler's entries: a poll for each source, a canary a minute, housekeeping once a day, and then the
    matters that are not carried through the archive yet; expiry once a night where it is switched on, and where there
    is a policy an audit, which is asked for once a day and takes place once a week.

    All are due once when a scheduler starts, which makes up for ticks that passed while none was running.
    """
    entries = {
        f"poll {source.name}": _entry(POLL, CronSchedule(source.schedule, source.timezone), now, source.name)
        for source in settings.sources
    }
    entries["canary"] = _entry(CANARY, CronSchedule(_ONCE_A_MINUTE), now)
    entries["housekeeping"] = _entry(HOUSEKEEPING, CronSchedule(_ONCE_A_DAY), now)
    entries["holds"] = _entry(HOLDS, CronSchedule(_ONCE_A_DAY), now)
    if settings.retention.expire:
        entries["expiry"] = _entry(EXPIRE, CronSchedule(_ONCE_A_NIGHT), now)
    if settings.retention.mode is not None:
        entries["audit"] = _entry(AUDIT, CronSchedule(_ONCE_A_MORNING), now)
    return entries


def _entry(task: str, schedule: CronSchedule, now: datetime, *args: str) -> dict[str, Any]:
    # ticks that nobody consumed must not pile up: each lapses before the next one is sent
    expires = max(_LEAST_EXPIRY, 0.9 * schedule.shortest_interval(now))
    return {
        "task": task,
        "schedule": schedule,
        "args": args,
        "options": {"expires": expires},
        "last_run_at": _LONG_AGO,
    }
