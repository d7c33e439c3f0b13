"""Cron lines in a source's zone, and the scheduler's entries."""

import pickle
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from celery import Celery
from celery.beat import ScheduleEntry, Scheduler

from config.retention import LockMode, Period, Retention
from tasks.names import AUDIT, CANARY, EXPIRE, HOLDS, HOUSEKEEPING, POLL
from tasks.schedule import CronSchedule, beat_schedule
from tests.support.clock import FakeClock
from tests.support.settings import settings, source

ROME = ZoneInfo("Europe/Rome")


def utc(text: str) -> datetime:
    """Read a UTC time."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def ticks(schedule: CronSchedule, after: str, count: int) -> list[str]:
    """Return the next ticks as day and time in UTC."""
    found, moment = [], utc(after)
    for _ in range(count):
        moment = schedule.next_after(moment)
        found.append(moment.strftime("%d %H:%M"))
    return found


def at(now: str) -> Callable[[], datetime]:
    """Return a clock that stands still."""
    return lambda: utc(now)


@pytest.mark.parametrize(
    ("line", "zone", "after", "expected"),
    [
        pytest.param("0 2 * * *", None, "2026-01-10T12:00", ["11 02:00", "12 02:00"], id="UTC where there is no zone"),
        pytest.param("0 2 * * *", ROME, "2026-01-10T12:00", ["11 01:00", "12 01:00"], id="the source's zone"),
        pytest.param("30 2 * * *", ROME, "2026-03-28T12:00", ["29 01:00", "30 00:30"], id="the hour that is skipped"),
        pytest.param("30 2 * * *", ROME, "2026-10-24T12:00", ["25 00:30", "26 01:30"], id="the hour that is repeated"),
        pytest.param("50 2 * * *", ROME, "2026-10-25T01:40", ["26 01:50"], id="from inside the repeated hour"),
        pytest.param(
            "*/30 * * * *",
            ROME,
            "2026-10-25T00:00",
            ["25 00:30", "25 01:00", "25 01:30", "25 02:00"],
            id="every half hour",
        ),
        pytest.param("0 0 29 2 *", None, "2026-01-01T00:00", ["29 00:00"], id="a leap day"),
    ],
)
def test_ticks_follow_the_zone_and_its_clock_changes(
    line: str, zone: ZoneInfo | None, after: str, expected: list[str]
) -> None:
    """A job at a fixed time runs once a day whatever the clocks do; one at an interval keeps its interval."""
    assert ticks(CronSchedule(line, zone), after, len(expected)) == expected


def test_ticks_always_move_on() -> None:
    """Through both clock changes of a year, each tick is later than the one before, for fixed and for starred lines."""
    for line in ("*/10 * * * *", "15 2 * * *", "*/7 1-3 * * *", "0,30 2,3 * * *"):
        schedule, moment = CronSchedule(line, ROME), utc("2026-03-28T20:00")
        for start in ("2026-03-28T20:00", "2026-10-24T20:00"):
            moment = utc(start)
            for _ in range(40):
                later = schedule.next_after(moment)
                assert later > moment
                moment = later


def test_due_once_a_tick_has_passed() -> None:
    """Between two ticks nothing is due and the wait is told; after one it is due, with the wait for the following."""
    schedule = CronSchedule("*/10 * * * *", nowfun=at("2026-01-10T12:04"))
    assert schedule.is_due(utc("2026-01-10T12:00")) == (False, 360)
    assert schedule.is_due(utc("2026-01-10T11:59")) == (True, 360)
    assert schedule.remaining_estimate(utc("2026-01-10T12:00")) == timedelta(minutes=6)


def test_missed_ticks_are_made_up_for_once() -> None:
    """After an outage one poll is due, not one for every tick that was missed."""
    schedule = CronSchedule("*/10 * * * *", nowfun=at("2026-01-10T12:04"))
    assert schedule.is_due(utc("2026-01-01T00:00")).is_due
    assert not schedule.is_due(utc("2026-01-10T12:04")).is_due


def test_a_clock_set_back_does_not_silence_the_schedule() -> None:
    """When the last run lies in the future, the next tick counts from now."""
    schedule = CronSchedule("*/10 * * * *", nowfun=at("2026-01-10T12:04"))
    assert schedule.is_due(utc("2027-01-01T00:00")) == (False, 360)


def test_schedules_pickle_and_compare() -> None:
    """Schedulers that keep their entries on disk write and compare them."""
    schedule = CronSchedule("0 2 * * *", ROME)
    again = pickle.loads(pickle.dumps(schedule))
    assert again == schedule
    assert hash(again) == hash(schedule)
    assert repr(again) == "<cron: 0 2 * * * Europe/Rome>"
    assert repr(CronSchedule("0 2 * * *")) == "<cron: 0 2 * * * UTC>"
    assert schedule != CronSchedule("0 2 * * *")
    assert schedule != "0 2 * * *"


def test_where_there_is_a_policy_an_audit_is_asked_for_each_day(tmp_path: Path, clock: FakeClock) -> None:
    """It takes place once a week; without a policy there is nothing to audit by the clock."""
    told = settings(tmp_path)
    policy = Retention(LockMode.GOVERNANCE, default=Period(days=30))
    entries = beat_schedule(told.model_copy(update={"retention": policy}), clock.now())
    assert entries["audit"]["task"] == AUDIT
    assert entries["audit"]["schedule"].next_after(utc("2026-01-10T12:00")) == utc("2026-01-11T04:41")
    assert "audit" not in beat_schedule(told, clock.now())


def test_every_source_has_an_entry_beside_canary_and_housekeeping(tmp_path: Path, clock: FakeClock) -> None:
    """The entries poll each source by its name on its own schedule, and lapse before the next is due."""
    told = settings(tmp_path, source("hq", "*/10 * * * *"), source("night", "0 2 * * *", "Europe/Rome"))
    entries = beat_schedule(told, clock.now())
    assert {name: (e["task"], e["args"]) for name, e in entries.items()} == {
        "poll hq": (POLL, ("hq",)),
        "poll night": (POLL, ("night",)),
        "canary": (CANARY, ()),
        "housekeeping": (HOUSEKEEPING, ()),
        "holds": (HOLDS, ()),
    }
    assert entries["poll night"]["schedule"] == CronSchedule("0 2 * * *", ROME)
    expires = {name: entry["options"]["expires"] for name, entry in entries.items()}
    assert expires["poll hq"] == 540
    assert expires["canary"] == 54
    assert expires["poll night"] == pytest.approx(0.9 * 23 * 3600, abs=0.1 * 3600), "the night of 23 hours counts"


def test_expiry_is_scheduled_where_it_is_switched_on(tmp_path: Path, clock: FakeClock) -> None:
    """Once a night; without `expire = true` there is no such entry, as above."""
    policy = Retention(LockMode.GOVERNANCE, default=Period(months=84), expire=True)
    told = settings(tmp_path).model_copy(update={"retention": policy})
    entry = beat_schedule(told, clock.now())["expiry"]
    assert (entry["task"], entry["args"]) == (EXPIRE, ())
    assert entry["options"]["expires"] == 0.9 * 24 * 3600


@pytest.mark.parametrize(
    ("line", "expires"), [("0,5 * * * *", 270), ("*/10 * * * * *", 30), ("0 9-17 * * *", 3240), ("1,2 3 * * *", 54)]
)
def test_a_tick_lapses_before_the_closest_following_one(
    tmp_path: Path, clock: FakeClock, line: str, expires: float
) -> None:
    """The shortest interval of a line counts, and half a minute is the least."""
    entries = beat_schedule(settings(tmp_path, source(schedule=line)), clock.now())
    assert entries["poll hq"]["options"]["expires"] == expires


def test_a_scheduler_that_starts_owes_everything_once(tmp_path: Path, clock: FakeClock) -> None:
    """Celery's own scheduler finds all entries due at its start, sends each once, and then waits for the clock."""
    sent: list[str] = []

    class Recording(Scheduler):
        def apply_async(self, entry: ScheduleEntry, *_: object, **__: object) -> None:
            sent.append(entry.name or "")

        producer = None  # type: ignore[assignment]  # nothing is sent

    app = Celery("test", set_as_current=False, broker="memory://")
    app.conf.beat_schedule = beat_schedule(settings(tmp_path), clock.now())
    scheduler = Recording(app)
    waits = [scheduler.tick() for _ in range(5)]
    assert sorted(sent) == ["canary", "holds", "housekeeping", "poll hq"]
    assert waits[-1] > 0
    app.close()
