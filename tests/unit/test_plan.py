"""The time machine: its figures are those of a plain recomputation and of expiry, and it writes nothing."""

import random
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from config.retention import LockMode, Period, Retention, Rule
from storage.lock import Lock
from storage.retention import Yardstick, kept, promised
from storage.sidecar import CallFacts
from tests.support.bench import NOW
from tests.support.expiring import POLICY, Archive, end_of
from worker.apply import apply
from worker.audit import audit
from worker.entries import days, read_day, sources
from worker.model import Recording
from worker.plan import Planned, plan

RULES = (
    Rule("desk", {"queue": "desk*"}, Period(days=60)),
    Rule("lobby", {"queue": "lobby", "direction": "inbound"}, Period(days=10)),
    Rule("abroad", {"number": "+44*"}, Period(days=90)),
    Rule("nobody", {"agent": "nobody"}, Period(days=5)),
)
RULED = replace(POLICY, rules=RULES)
SOON = NOW + timedelta(days=31)


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    """Return an archive whose policy keeps all for thirty days."""
    return Archive(tmp_path)


async def varied(archive: Archive, count: int = 40) -> list[Recording]:
    """Archive calls of several kinds and days."""
    dice = random.Random(4)
    made = []
    for number in range(count):
        recording = archive.bench.vendor.add(number, minutes_ago=dice.randrange(60, 40 * 1440))
        told = {
            "queue": dice.choice([None, "desk-1", "desk-2", "lobby", "sales"]),
            "from_": dice.choice(["5550100", "+44205550100"]),
        }
        described = replace(recording, call=recording.call.model_copy(update=told))
        await archive.archive(described)
        made.append(described)
    return made


def no_writing(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on, whoever writes fails the test."""

    async def refuse(*args: Any, **options: Any) -> None:
        raise AssertionError("nothing is to be written")

    for name in ("put", "upload", "extend_lock", "set_legal_hold", "delete_version", "protection"):
        monkeypatch.setattr(archive.store, name, refuse)


@pytest.mark.parametrize("day", [0, 9, 29, 45, 200])
@pytest.mark.parametrize("indexed", [True, False])
async def test_a_plan_is_what_expiry_does(
    archive: Archive, monkeypatch: pytest.MonkeyPatch, day: int, indexed: bool
) -> None:
    """What is deletable and held on a date is what a run on that date destroys and leaves, recording by recording."""
    archive.policy(RULED)
    made = await varied(archive)
    await archive.hold("acme", *made[:7])
    if indexed:
        await audit(archive.services)
    before = archive.services.settings.retention
    on = NOW + timedelta(days=day)
    with monkeypatch.context() as patch:
        no_writing(archive, patch)
        planned = await plan(archive.services, on)
    total = planned.total()
    assert total.recordings == len(made)
    assert planned.read == (0 if indexed else len(made))
    archive.later(day)
    report = await archive.expire()
    assert archive.services.settings.retention is before
    figures = report.public()
    assert (total.deletable, total.bytes, total.held) == (figures["destroyed"], figures["bytes"], figures["held"])
    left = await plan(archive.services, on)
    assert (left.total().deletable, left.total().recordings) == (0, total.recordings - total.deletable)


async def test_per_source_and_rule(archive: Archive) -> None:
    """The figures of each rule are those of a plain count; a rule that matches nothing is not among the used."""
    archive.policy(RULED)
    made = await varied(archive)
    planned = await plan(archive.services, SOON)
    plain: dict[str | None, list[bool]] = {}
    for recording in made:
        found = promised(RULED, "hq", recording.call, NOW)
        assert found
        plain.setdefault(found.facts.rule, []).append(found.until <= SOON)
    assert {rule: (figures.recordings, figures.deletable) for rule, figures in planned.rules["hq"].items()} == {
        (False, rule): (len(due), sum(due)) for rule, due in plain.items()
    }
    assert {rule.name for rule in RULES} - planned.used == {"nobody"}
    assert (planned.longer, planned.shorter, planned.before) == ({}, {}, {})


async def test_another_policy(archive: Archive) -> None:
    """What it would extend and where it is shorter, by rule; the figures are those that it would make."""
    archive.policy(replace(POLICY, default=Period(days=30), rules=(Rule("desk", {"queue": "desk*"}, Period(days=60)),)))
    made = await varied(archive)
    other = replace(POLICY, default=Period(days=40), rules=(Rule("table", {"queue": "desk*"}, Period(days=20)),))
    desk = [r for r in made if r.call.queue and r.call.queue.startswith("desk")]
    planned = await plan(archive.services, SOON, other)
    assert planned.longer == {None: len(made) - len(desk)}
    assert planned.shorter == {"table": len(desk)}
    assert planned.before["hq"] == sum(end_of(r, 60 if r in desk else 30) <= SOON for r in made)
    assert planned.total().deletable == sum(end_of(r, 60 if r in desk else 40) <= SOON for r in made)


async def test_what_matters_hold_is_named(archive: Archive) -> None:
    """With each matter's own count of those whose time is over; a recording under two counts for both."""
    first, second, _ = await archive.add(1, 2, 3)
    await archive.hold("acme", first, second, sweep=False)
    await archive.hold("beta", source="h*", sweep=False)
    await archive.hold("young", from_=NOW, sweep=False)
    await archive.release(await archive.hold("old", first, sweep=False))
    planned = await plan(archive.services, SOON)
    assert planned.matters == {"acme": 2, "beta": 3}
    assert (planned.total().deletable, planned.total().held) == (0, 3)
    assert (await plan(archive.services, NOW)).matters == {}
    assert (await plan(archive.services, SOON, POLICY)).before == {"hq": 0}


async def test_a_longer_lock_counts(archive: Archive) -> None:
    """What an earlier policy had extended stays, once an audit has seen it."""
    (recording,) = await archive.add(1)
    archive.policy(replace(POLICY, default=Period(days=90)))
    await apply(archive.services)
    archive.policy(POLICY)
    planned = await plan(archive.services, SOON)
    assert planned.rules["hq"].keys() == {(True, None)}
    assert planned.total().deletable == 0
    assert planned.shorter == {None: 1}
    assert (await plan(archive.services, end_of(recording, 90))).total().deletable == 1


async def test_what_nothing_was_promised_for_is_kept(tmp_path: Path) -> None:
    """Without an end, and told as that; a policy would change it."""
    archive = Archive(tmp_path, Retention())
    await archive.add(1)
    planned = await plan(archive.services, SOON)
    assert planned.rules["hq"].keys() == {None}
    assert planned.total().deletable == 0
    asked = await plan(archive.services, SOON, POLICY)
    assert (asked.total().deletable, asked.longer, asked.before["hq"]) == (1, {None: 1}, 0)


async def test_sidecars_that_are_none_are_named(archive: Archive) -> None:
    """They are in no figure."""
    await archive.add(1)
    archive.put_aside("v1/recordings/source=hq/date=2026-03-05/junk.json")
    planned = await plan(archive.services, SOON)
    assert planned.unreadable == ["v1/recordings/source=hq/date=2026-03-05/junk.json"]
    assert (planned.read, planned.total().recordings, planned.days) == (2, 1, 1)


async def test_plans_of_parts_add_up(archive: Archive) -> None:
    """The sum of two halves is the plan of the whole."""
    from worker.plan import plan_days

    archive.policy(RULED)
    await varied(archive)
    await archive.hold("acme", queue="desk*", sweep=False)
    archive.put_aside("v1/recordings/source=hq/date=2026-03-05/junk.json")
    places = [(name, day) for name in await sources(archive.services) for day in await days(archive.services, name)]
    asked = replace(RULED, default=Period(days=20))
    total = Planned(SOON)
    for half in (places[::2], places[1::2]):
        total.add(await plan_days(archive.services, SOON, asked, half))
    assert total == await plan(archive.services, SOON, asked)


async def test_how_long_is_kept_does_not_depend_on_who_was_asked_about_before(archive: Archive) -> None:
    """What is remembered of rules is right for every call, also when it is forgotten now and then."""
    archive.policy(RULED)
    await varied(archive)
    yardstick = Yardstick(RULED)
    async for entry in entries(archive):
        assert yardstick.kept(entry) == kept(RULED, entry)


async def entries(archive: Archive) -> AsyncIterator[Any]:
    """Iterate over all entries."""
    for day in await days(archive.services, "hq"):
        for entry in (await read_day(archive.services, "hq", day)).entries:
            yield entry


async def test_memory_of_rules_is_bounded(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many numbers called."""
    monkeypatch.setattr("storage.retention._MOST_KNOWN", 3)
    yardstick = Yardstick(Retention(LockMode.GOVERNANCE, default=Period(days=1), rules=RULES))
    for number in range(10):
        yardstick.matching("hq", CallFacts(started_at=None, from_=f"+44{number}"))
        assert len(yardstick._known) <= 3
    assert yardstick.used == {"abroad"}


async def test_because_of_what_is_kept(archive: Archive) -> None:
    """The longest of promise, policy and lock; where two agree, the promise."""
    await archive.add(1)
    (entry,) = (await read_day(archive.services, "hq", NOW.date())).entries
    assert entry.promised
    longer, day = replace(POLICY, default=Period(days=60)), timedelta(days=1)
    for policy, locked, because, days_more in (
        (POLICY, None, "promise", 0),
        (POLICY, entry.promised, "promise", 0),
        (longer, None, "policy", 30),
        (longer, entry.promised + 40 * day, "lock", 40),
        (Retention(), entry.promised + day, "lock", 1),
        (Retention(), None, "promise", 0),
    ):
        found = kept(policy, replace(entry, locked=locked))
        assert found
        assert (found.because.value, found.until - entry.promised) == (because, days_more * day)
    assert kept(Retention(), replace(entry, promised=None)) is None


# -- apply


def locks(archive: Archive, recording: Recording) -> list[Lock | None]:
    """Return the locks of sidecar and media."""
    return [archive.store.versions_of[key][-1].lock for key in archive.of(recording)]


async def test_a_longer_policy_is_applied(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    """To media and sidecars; a dry run says the same and writes nothing; afterwards there is nothing to ask."""
    made = await archive.add(1, 2)
    archive.policy(replace(POLICY, rules=(Rule("all", {"source": "hq"}, Period(days=60)),)))
    with monkeypatch.context() as patch:
        no_writing(archive, patch)
        dry = await apply(archive.services, dry_run=True)
    assert (dry.recordings, dry.longer, dry.versions, dry.read) == (2, {"all": 2}, 0, 2)
    report = await apply(archive.services)
    assert (report.longer, report.versions, report.shorter) == ({"all": 2}, 4, {})
    for recording in made:
        assert locks(archive, recording) == [Lock(LockMode.GOVERNANCE, end_of(recording, 60))] * 2
    archive.store.said.clear()
    again = await apply(archive.services)
    assert (again.longer, again.versions, again.read) == ({}, 0, 0)
    assert {name for name, _ in archive.store.said} == {"folders", "objects", "get"}


async def test_nothing_is_shortened(archive: Archive) -> None:
    """A shorter policy is told by rule, and counted; what one rule lengthens is done all the same."""
    archive.policy(RULED)
    made = await varied(archive)
    before = {recording.id: locks(archive, recording) for recording in made}
    archive.policy(replace(RULED, default=Period(days=20), rules=(*RULES[:2], replace(RULES[2], keep=Period(days=99)))))
    report = await apply(archive.services)
    by_rule: dict[str | None, int] = {}
    for recording in made:
        found = promised(RULED, "hq", recording.call, NOW)
        assert found
        rule = found.facts.rule
        by_rule[rule] = by_rule.get(rule, 0) + 1
        if rule != "abroad":
            assert locks(archive, recording) == before[recording.id]
    assert report.longer == {"abroad": by_rule["abroad"]}
    assert report.shorter == {None: by_rule[None]}


async def test_what_is_over_under_the_longer_policy_too_is_left(archive: Archive) -> None:
    """No store takes a lock that ends in the past."""
    await archive.add(1)
    archive.policy(replace(POLICY, default=Period(days=31)))
    archive.later(40)
    report = await apply(archive.services)
    assert (report.longer, report.versions) == ({}, 0)


async def test_what_somebody_else_extended_is_left(archive: Archive) -> None:
    """The store is asked before anything is written."""
    (recording,) = await archive.add(1)
    for key in archive.of(recording):
        await archive.store.extend_lock(key, None, Lock(LockMode.GOVERNANCE, end_of(recording, 70)))
    archive.policy(replace(POLICY, default=Period(days=60)))
    report = await apply(archive.services)
    assert (report.longer, report.versions) == ({None: 1}, 0)
    assert locks(archive, recording) == [Lock(LockMode.GOVERNANCE, end_of(recording, 70))] * 2


async def test_what_the_store_refuses_is_told_and_tried_again(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the next run; the others are done. What is destroyed meanwhile is no trouble."""
    from storage.errors import ObjectMissing, StoreRefused

    first, second, third = await archive.add(1, 2, 3)
    archive.policy(replace(POLICY, default=Period(days=60)))
    extend = archive.store.extend_lock

    async def refused(key: str, version_id: str | None, lock: Lock) -> Lock:
        if key in archive.of(first):
            raise StoreRefused("no right", key)
        if key in archive.of(third):
            raise ObjectMissing("gone", key)
        return await extend(key, version_id, lock)

    with monkeypatch.context() as patch:
        patch.setattr(archive.store, "extend_lock", refused)
        patch.setattr("worker.apply._TOLD", 1)
        report = await apply(archive.services)
    assert (report.longer, report.versions, report.refused) == ({None: 2}, 2, ["no right"])
    assert (await apply(archive.services)).longer == {None: 1}
    assert locks(archive, first) == locks(archive, first)[:1] * 2 == [Lock(LockMode.GOVERNANCE, end_of(first, 60))] * 2
    assert second


async def test_a_sidecar_that_is_none_is_told(archive: Archive) -> None:
    """And delete markers hide nothing from a longer policy."""
    (recording,) = await archive.add(1)
    archive.put_aside("v1/recordings/source=hq/date=2026-03-05/junk.json")
    media = archive.of(recording)[1]
    archive.hide(media)
    archive.policy(replace(POLICY, default=Period(days=60)))
    report = await apply(archive.services)
    assert report.unreadable == ["v1/recordings/source=hq/date=2026-03-05/junk.json"]
    assert archive.store.versions_of[media][0].lock == Lock(LockMode.GOVERNANCE, end_of(recording, 60))


async def test_a_call_without_a_time_is_not_extended_by_the_clocks_ticking(archive: Archive) -> None:
    """Its clock starts when it is archived, which is told twice, a moment apart."""
    recording = archive.bench.vendor.add(1)
    ended = datetime(2090, 1, 1, tzinfo=UTC)  # not to be believed
    call = recording.call.model_copy(update={"started_at": ended, "ended_at": ended})
    await archive.archive(replace(recording, call=call))
    archive.clock.advance(5)
    report = await apply(archive.services)
    assert (report.longer, report.shorter) == ({}, {})
