"""A recording under a policy: the sidecar says what was promised, and everything that is written is locked."""

from contextlib import nullcontext
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from config.retention import LockMode, Period, Retention, Rule
from storage.errors import LockMissing, NoObjectLock, ObjectMissing
from storage.keys import rid, utc_date
from storage.lock import Lock
from storage.memory import MemoryStore
from storage.sidecar import GapReason
from storage.store import Capabilities
from tests.support.audio import wav
from tests.support.bench import NOW, Bench, make_bench
from tests.support.clock import FakeClock
from worker.checking import check_bucket, refuse_unlockable
from worker.gaps import write_gap, write_unreadable
from worker.model import ClaimedHash, Recording, Unreadable
from worker.outcome import Fate, Outcome
from worker.pipeline import archive_one

FIVE_MIB = 5 * 1024 * 1024
SEVEN_YEARS = Period(months=84)
POLICY = Retention(LockMode.GOVERNANCE, default=SEVEN_YEARS)
UNTIL = datetime(2033, 3, 5, 11, 0, 10, tzinfo=UTC)
LOCK = Lock(LockMode.GOVERNANCE, UNTIL)


def make(folder: Path, retention: Retention = POLICY) -> Bench:
    """Return a workbench whose bucket can lock."""
    clock = FakeClock(NOW)
    bench = make_bench(
        folder, store=MemoryStore(object_lock=True, clock=clock), retention=retention, part_bytes=FIVE_MIB
    )
    bench.services.clock = bench.clock = clock
    return bench


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """Return a workbench with seven years for all."""
    return make(tmp_path)


async def archive(bench: Bench, recording: Recording) -> Outcome:
    """Archive one recording."""
    return await archive_one(bench.services, bench.desk, recording, NOW)


def locks(bench: Bench) -> dict[str, list[Lock | None]]:
    """Return the lock of every version, by the first words of its key."""
    return {key: [version.lock for version in found] for key, found in bench.store.versions_of.items()}


def sidecar_key(bench: Bench, recording: Recording) -> str:
    """Return where the sidecar lies."""
    return bench.keys.sidecar("hq", utc_date(recording.started_at), rid(recording.id))


@pytest.mark.parametrize("seconds", [1, 800], ids=["small", "large"])
async def test_media_and_sidecar_are_locked_and_the_sidecar_says_so(bench: Bench, seconds: int) -> None:
    """In one piece or in parts; date, mode, rule and version of the policy are frozen."""
    recording = bench.vendor.add(1, body=wav(seconds))
    assert (await archive(bench, recording)).fate is Fate.ARCHIVED
    assert list(locks(bench).values()) == [[LOCK], [LOCK]]
    told = (await bench.sidecar(recording)).archive
    assert (told.retain_until, told.lock_mode, told.legal_hold) == (UNTIL, "governance", False)
    assert told.retention
    assert (told.retention.rule, told.retention.keep) == (None, "7y")
    assert told.retention.counted_from == recording.call.ended_at
    assert told.retention.policy == POLICY.version


async def test_the_rule_that_decides_is_in_the_sidecar(tmp_path: Path) -> None:
    """By its name; what `describe` tells of the call counts too."""
    rules = (
        Rule("desk", {"queue": "desk*", "number": "5550*"}, Period(months=120)),
        Rule("all", {"source": "hq"}, Period(days=30)),
    )
    retention = Retention(LockMode.COMPLIANCE, True, SEVEN_YEARS, rules=rules)
    bench = make(tmp_path, retention)
    recording, other = bench.vendor.add(1), bench.vendor.add(2)

    def describes(listed: Recording) -> Recording:
        queue = "desk-1" if listed.id == recording.id else "lobby"
        return Recording(listed.id, listed.call.model_copy(update={"queue": queue}), listed.record)

    bench.vendor.describes = describes
    for one in (recording, other):
        await archive(bench, one)
    desk, everybody = (await bench.sidecar(recording)).archive, (await bench.sidecar(other)).archive
    assert desk.retention
    assert (desk.retention.rule, desk.lock_mode) == ("desk", "compliance")
    assert desk.retain_until == datetime(2036, 3, 5, 11, 0, 10, tzinfo=UTC)
    assert everybody.retention
    assert (everybody.retention.rule, everybody.retention.keep) == ("all", "30d")


async def test_without_a_mode_all_is_as_before(tmp_path: Path) -> None:
    """Nothing is locked, and the sidecar has not a word more than it had."""
    bench = make(tmp_path, Retention())
    recording = bench.vendor.add(1)
    await archive(bench, recording)
    assert list(locks(bench).values()) == [[None], [None]]
    body = await bench.store.get(sidecar_key(bench, recording), max_bytes=10**6)
    assert b'"retain_until": null,\n    "lock_mode": null,\n    "legal_hold": false\n' in body
    assert b"retention" not in body


async def test_a_promise_that_is_over_is_told_and_locks_nothing(tmp_path: Path) -> None:
    """A call of long ago is archived, with the date that has passed and no lock: S3 would refuse it."""
    bench = make(tmp_path, Retention(LockMode.GOVERNANCE, default=Period(days=1)))
    recording = bench.vendor.add(1, minutes_ago=3 * 24 * 60)
    assert (await archive(bench, recording)).fate is Fate.ARCHIVED
    assert list(locks(bench).values()) == [[None], [None]]
    told = (await bench.sidecar(recording)).archive
    assert told.retain_until == datetime(2026, 3, 3, 12, 0, 10, tzinfo=UTC)
    assert told.lock_mode is None
    assert told.retention


async def _left_behind(bench: Bench, lock: Lock | None, seconds: int = 1) -> tuple[Recording, str]:
    """Archive a recording's media under this lock, as a worker did that died before the sidecar."""
    recording = bench.vendor.add(1, body=wav(seconds))
    await archive(bench, recording)
    key = (await bench.sidecar(recording)).media.key
    del bench.store.versions_of[sidecar_key(bench, recording)]
    (stored,) = bench.store.versions_of[key]
    bench.store.versions_of[key] = [type(stored)(stored.body, stored.content_type, stored.metadata, NOW, "v1", lock)]
    return recording, key


@pytest.mark.parametrize("seconds", [1, 800], ids=["small", "large"])
@pytest.mark.parametrize(
    "before", [None, Lock(LockMode.GOVERNANCE, UNTIL - timedelta(days=1)), LOCK], ids=["none", "shorter", "same"]
)
async def test_adopted_media_are_locked_as_promised_now(bench: Bench, before: Lock | None, seconds: int) -> None:
    """Media of a worker that died before the sidecar are extended to what is promised."""
    recording, key = await _left_behind(bench, before, seconds)
    assert (await archive(bench, recording)).fate is Fate.ARCHIVED
    assert locks(bench)[key] == [LOCK]
    told = (await bench.sidecar(recording)).archive
    assert (told.retain_until, told.lock_mode) == (UNTIL, "governance")


async def test_adopted_media_with_a_longer_lock_keep_it(bench: Bench) -> None:
    """What an earlier policy promised stands, is said in the sidecar, and holds for the sidecar too."""
    longer = Lock(LockMode.COMPLIANCE, UNTIL + timedelta(days=365))
    recording, key = await _left_behind(bench, longer)
    assert (await archive(bench, recording)).fate is Fate.ARCHIVED
    assert locks(bench) == {key: [longer], sidecar_key(bench, recording): [longer]}
    told = (await bench.sidecar(recording)).archive
    assert (told.retain_until, told.lock_mode) == (longer.until, "compliance")


@pytest.mark.parametrize(
    ("before", "kept"),
    [(LOCK, LOCK), (Lock(LockMode.GOVERNANCE, NOW - timedelta(days=1)), None), (None, None)],
    ids=["longer", "over", "none"],
)
async def test_an_earlier_promise_outlives_one_that_is_over(
    tmp_path: Path, before: Lock | None, kept: Lock | None
) -> None:
    """Where nothing is promised any more, a lock that still stands on the media counts for the sidecar."""
    bench = make(tmp_path, Retention(LockMode.GOVERNANCE, default=Period(days=1)))
    recording = bench.vendor.add(1, minutes_ago=3 * 24 * 60)
    await archive(bench, recording)
    key = (await bench.sidecar(recording)).media.key
    del bench.store.versions_of[sidecar_key(bench, recording)]
    (stored,) = bench.store.versions_of[key]
    bench.store.versions_of[key] = [type(stored)(stored.body, stored.content_type, stored.metadata, NOW, "v1", before)]
    assert (await archive(bench, recording)).fate is Fate.ARCHIVED
    assert locks(bench)[sidecar_key(bench, recording)] == [kept]
    told = (await bench.sidecar(recording)).archive
    assert told.lock_mode == (kept.mode if kept else None)
    assert told.retain_until == (kept.until if kept else datetime(2026, 3, 3, 12, 0, 10, tzinfo=UTC))


async def test_a_sidecar_that_is_there_is_locked_as_promised_now(bench: Bench) -> None:
    """One that another worker wrote without its lock is given it before the recording counts as held."""
    recording = bench.vendor.add(1)
    await archive(bench, recording)
    key = sidecar_key(bench, recording)
    (stored,) = bench.store.versions_of[key]
    bench.store.versions_of[key] = [type(stored)(stored.body, stored.content_type, stored.metadata, NOW, "v9")]
    assert (await archive(bench, recording)).fate is Fate.HELD
    assert locks(bench)[key] == [LOCK]


async def test_media_that_vanish_while_their_lock_is_looked_at_are_tried_again(bench: Bench) -> None:
    """The next try finds the key free, and archives."""
    recording, key = await _left_behind(bench, LOCK)
    real = bench.store.extend_lock

    async def gone(*_: Any) -> Lock:
        bench.store.extend_lock = real  # type: ignore[method-assign]
        del bench.store.versions_of[key]
        raise ObjectMissing("gone", key)

    bench.store.extend_lock = gone  # type: ignore[method-assign]
    assert (await archive(bench, recording)).fate is Fate.ARCHIVED
    assert locks(bench)[key] == [LOCK]


async def test_without_its_lock_nothing_is_held(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Media that could not be locked stop the pass, and no sidecar is written."""
    recording = bench.vendor.add(1)

    async def dropped(key: str, *_: Any, **__: Any) -> None:
        raise LockMissing("the store keeps no lock", key)

    monkeypatch.setattr(bench.store, "put", dropped)
    with pytest.raises(LockMissing):
        await archive(bench, recording)
    assert await bench.everything() == []


@pytest.mark.parametrize("seconds", [1, 800], ids=["small", "large"])
async def test_quarantine_is_locked(bench: Bench, seconds: int) -> None:
    """Evidence is kept as long as the recording would have been."""
    recording = bench.vendor.add(1, body=wav(seconds), claimed_hash=ClaimedHash("sha256", "0" * 64))
    outcome = await archive(bench, recording)
    assert outcome.reason is GapReason.HASH_MISMATCH
    assert locks(bench) == {"v1/quarantine/source=hq/date=2026-03-05/rec-1.1.wav": [LOCK]}


async def test_gap_records_are_locked_in_every_version(bench: Bench) -> None:
    """Written again, a record is a new version, locked as well; the old one stays locked."""
    recording = bench.vendor.add(1)
    for _ in range(2):
        await write_gap(bench.services, bench.desk, recording, GapReason.EMPTY, "no bytes")
    key = bench.keys.gap("hq", utc_date(recording.started_at), "rec-1")
    assert locks(bench) == {key: [LOCK, LOCK]}
    assert (await bench.gap(recording)).tries == 2


async def test_a_gap_without_a_time_counts_from_now(bench: Bench) -> None:
    """A row that nobody can read is kept from the day on which it was put on record."""
    await write_unreadable(bench.services, bench.desk, Unreadable("x", "no start", {}))
    assert list(locks(bench).values()) == [[Lock(LockMode.GOVERNANCE, datetime(2033, 3, 5, 12, tzinfo=UTC))]]


@pytest.mark.parametrize(("object_lock", "ok"), [(True, True), (None, True), (False, False)])
async def test_what_is_found_of_a_bucket(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, object_lock: bool | None, ok: bool
) -> None:
    """One whose setting cannot be read is taken, with a remark; one that cannot lock is refused."""
    can = replace(await bench.store.ensure_probed(), object_lock=object_lock)

    async def probed(*_: str) -> Capabilities:
        return can

    monkeypatch.setattr(bench.store, "probe", probed)
    monkeypatch.setattr(bench.store, "ensure_probed", probed)
    finding = await check_bucket(bench.services)
    assert finding.ok is ok
    assert any("could not be read" in warning for warning in finding.warnings) is (object_lock is None)
    with nullcontext() if ok else pytest.raises(NoObjectLock, match="bucket calls has no Object Lock"):
        await refuse_unlockable(bench.services.settings, bench.store)
