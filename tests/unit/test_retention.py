"""What is promised for a call: the calendar, the rule that decides, where the clock starts."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from config.retention import LockMode, Period, Retention, Rule
from storage.lock import Lock
from storage.retention import matches, promised
from storage.sidecar import CallFacts, Direction

NOW = datetime(2026, 3, 5, 12, tzinfo=UTC)
ENDED = datetime(2026, 3, 4, 10, 30, tzinfo=UTC)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
SEVEN_YEARS = Period(months=84)


def call(**facts: Any) -> CallFacts:
    """Return what is known of a call of an hour ago."""
    return CallFacts(**{"started_at": ENDED - timedelta(minutes=5), "ended_at": ENDED, **facts})


def policy(*rules: Rule, default: Period = SEVEN_YEARS) -> Retention:
    """Return a policy in governance mode."""
    return Retention(LockMode.GOVERNANCE, default=default, rules=rules)


def until(*rules: Rule, now: datetime = NOW, default: Period = SEVEN_YEARS, **facts: Any) -> datetime:
    """Return until when a call of the source hq is kept."""
    found = promised(policy(*rules, default=default), "hq", call(**facts), now)
    assert found
    return found.until


@pytest.mark.parametrize(
    ("begins", "keep", "ends"),
    [
        ("2024-02-29T10:00:00", Period(months=12), "2025-02-28T10:00:00"),
        ("2024-02-29T10:00:00", Period(months=48), "2028-02-29T10:00:00"),
        ("2023-02-28T23:59:59", Period(months=12), "2024-02-28T23:59:59"),
        ("2024-02-28T10:00:00", Period(days=365), "2025-02-27T10:00:00"),
        ("2026-01-31T00:00:00", Period(months=1), "2026-02-28T00:00:00"),
        ("2026-08-31T00:00:00", Period(months=18), "2028-02-29T00:00:00"),
        ("2026-12-31T00:00:00", Period(months=2), "2027-02-28T00:00:00"),
        ("2026-11-30T00:00:00", Period(months=1), "2026-12-30T00:00:00"),
        ("2026-12-15T00:00:00", Period(months=12), "2027-12-15T00:00:00"),
        ("2026-12-31T12:00:00", Period(days=90), "2027-03-31T12:00:00"),
        ("1900-02-28T00:00:00", Period(months=1), "1900-03-28T00:00:00"),
    ],
)
def test_the_calendar(begins: str, keep: Period, ends: str) -> None:
    """Years and months keep the day, or take the month's last where it has none; days are days."""
    assert keep.after(datetime.fromisoformat(f"{begins}Z")) == datetime.fromisoformat(f"{ends}Z")


moments = st.timedeltas(timedelta(0), timedelta(days=130 * 365)).map(lambda since: EPOCH + since)
zones = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
months = st.integers(1, 1200)
days = st.integers(1, 36525)


@given(moments, months, days, zones)
def test_a_promise_is_never_short(ended: datetime, month: int, day: int, zone: timezone) -> None:
    """At least 28 days a month and 365 a year, and no more than the calendar has; in UTC, of whole seconds."""
    facts = CallFacts(started_at=None, ended_at=ended.astimezone(zone))
    found = promised(policy(default=Period(months=month)), "hq", facts, ended)
    assert found
    span = found.until - ended
    years = month // 12
    assert span >= max(timedelta(days=28 * month), timedelta(days=365 * years))
    assert span < timedelta(days=31 * month + 1)
    assert found.until.utcoffset() == timedelta(0)
    assert found.until.microsecond == 0
    counted = promised(policy(default=Period(days=day)), "hq", facts, ended)
    assert counted
    assert timedelta(0) <= counted.until - (ended + timedelta(days=day)) < timedelta(seconds=1)


@given(moments, months, months)
def test_keeping_longer_never_ends_earlier(ended: datetime, one: int, two: int) -> None:
    """A longer span of months never ends before a shorter one, whatever the month's length."""
    short, long = sorted((one, two))
    assert Period(months=short).after(ended) <= Period(months=long).after(ended)


@given(moments, moments, months)
def test_a_later_call_is_never_free_earlier(one: datetime, two: datetime, month: int) -> None:
    """Of two calls under one rule, the earlier ends earlier or at the same time."""
    assume(one < two)
    keep = Period(months=month)
    assert keep.after(one).date() <= keep.after(two).date()


@given(moments, st.lists(st.builds(Period, months=months), max_size=4), months)
def test_the_longest_rule_wins(ended: datetime, keeps: list[Period], default: int) -> None:
    """Whatever the order; the default plays a part only where no rule matches."""
    rules = [Rule(f"r{n}", {"source": "*"}, keep) for n, keep in enumerate(keeps)]
    found = promised(policy(*rules, default=Period(months=default)), "hq", call(ended_at=ended), ended)
    assert found
    expected = max((keep.after(ended) for keep in keeps), default=Period(months=default).after(ended))
    assert timedelta(0) <= found.until - expected < timedelta(seconds=1)
    assert (found.facts.rule is None) is (not keeps)


def test_a_rule_may_be_shorter_than_the_default() -> None:
    """What it says holds for what it matches."""
    rule = Rule("lobby", {"queue": "lobby"}, Period(days=90))
    assert until(rule, queue="lobby") == ENDED + timedelta(days=90)
    assert until(rule, queue="sales") == datetime(2033, 3, 4, 10, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("facts", "begins"),
    [
        ({}, ENDED),
        ({"ended_at": None}, ENDED - timedelta(minutes=5)),
        ({"ended_at": NOW + timedelta(hours=23)}, NOW + timedelta(hours=23)),
        ({"ended_at": NOW + timedelta(hours=25)}, ENDED - timedelta(minutes=5)),
        ({"ended_at": None, "started_at": None}, NOW),
        ({"ended_at": None, "started_at": NOW + timedelta(days=400)}, NOW),
        ({"ended_at": ENDED.astimezone(timezone(timedelta(hours=-9)))}, ENDED),
    ],
)
def test_where_the_clock_starts(facts: dict[str, Any], begins: datetime) -> None:
    """At the end; at the start where that is unknown or not to be believed; now, where nothing is."""
    found = promised(policy(default=Period(days=1)), "hq", call(**facts), NOW)
    assert found
    assert found.facts.counted_from == begins
    assert found.facts.counted_from.utcoffset() == timedelta(0)
    assert found.until == begins + timedelta(days=1)


def test_fractions_of_a_second_are_rounded_up() -> None:
    """What a store keeps in seconds is never shorter than what was promised."""
    assert until(default=Period(days=1), ended_at=ENDED + timedelta(microseconds=1)) == ENDED + timedelta(
        days=1, seconds=1
    )


@pytest.mark.parametrize(
    ("match", "facts", "fits"),
    [
        ({"source": "hq"}, {}, True),
        ({"source": "h?"}, {}, True),
        ({"source": "branch-*"}, {}, False),
        ({"queue": "trading*"}, {"queue": "trading-eu"}, True),
        ({"queue": "trading*"}, {"queue": "Trading"}, False),
        ({"queue": "trading*"}, {}, False),
        ({"queue": "*"}, {}, True),
        ({"queue": "**"}, {}, False),
        ({"queue": "*"}, {"queue": ""}, True),
        ({"queue": "?*"}, {"queue": ""}, False),
        ({"direction": "in*"}, {"direction": Direction.INBOUND}, True),
        ({"direction": "inbound"}, {"direction": Direction.OUTBOUND}, False),
        ({"direction": "unknown"}, {}, True),
        ({"number": "+4420*"}, {"from_": "+44205550100"}, True),
        ({"number": "+4420*"}, {"to": "+44205550100"}, True),
        ({"number": "+4420*"}, {"from_": "1001", "to": "1002"}, False),
        ({"number": "+4420*"}, {}, False),
        ({"number": "*"}, {}, True),
        ({"agent": "[ab]*"}, {"agent": "bob"}, True),
        ({"agent": "[ab]*"}, {"agent": "carol"}, False),
        ({"queue": "x", "agent": "bob"}, {"queue": "x", "agent": "bob"}, True),
        ({"queue": "x", "agent": "bob"}, {"queue": "x", "agent": "al"}, False),
    ],
)
def test_what_a_rule_matches(match: dict[str, str], facts: dict[str, Any], fits: bool) -> None:
    """Every pattern, as a shell would, upper and lower case apart; what was not told is matched by "*" alone."""
    assert matches(Rule("r", match, Period(days=1)), "hq", call(**facts)) is fits


def test_what_is_frozen() -> None:
    """Rule, span, start and version of the policy; the default has no name."""
    told = policy(Rule("desk", {"queue": "desk"}, Period(months=120)))
    found = promised(told, "hq", call(queue="desk"), NOW)
    assert found
    facts = (found.facts.rule, found.facts.keep, found.facts.counted_from, found.facts.policy)
    assert facts == ("desk", "10y", ENDED, told.version)
    found = promised(told, "hq", call(), NOW)
    assert found
    assert (found.facts.rule, found.facts.keep) == (None, "7y")


def test_without_a_mode_there_is_no_promise() -> None:
    """A default alone promises nothing."""
    assert promised(Retention(default=Period(days=1)), "hq", call(), NOW) is None


@pytest.mark.parametrize(("minutes", "locked"), [(-1, False), (0, False), (20, False), (21, True)])
def test_a_promise_that_is_over_locks_nothing(minutes: int, locked: bool) -> None:
    """S3 refuses dates in the past, and so what would be over before the bytes have arrived is not asked for."""
    now = ENDED + timedelta(days=1, minutes=-minutes)
    found = promised(policy(default=Period(days=1)), "hq", call(), now)
    assert found
    assert found.lock(now) == (Lock(LockMode.GOVERNANCE, found.until) if locked else None)


locks = st.builds(Lock, st.sampled_from(LockMode), moments)


@given(locks, locks)
def test_locks_only_grow(one: Lock, two: Lock) -> None:
    """Joined, two locks cover both, and nothing more than one of them said."""
    joined = one.joined(two)
    assert joined.covers(one)
    assert joined.covers(two)
    assert joined == two.joined(one)
    assert joined.mode in (one.mode, two.mode)
    assert joined.until in (one.until, two.until)
    assert one.joined(None) == one
