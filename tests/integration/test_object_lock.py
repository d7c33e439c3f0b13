"""What Object Lock holds, on a real server (Ceph RGW) and on moto, and what expiry destroys there.

Each row of the table is tried with all rights that the owner of a bucket has; that callvault lacks most of them is
`test_iam_on_rgw`. A row says where moto differs; `pytest -rP` prints what was seen.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from config.clock import SystemClock
from config.retention import LockMode, Period, Retention
from config.settings import Archive
from storage.certificate import Certificate
from storage.errors import StoreRefused, VersionLocked
from storage.holds import Scope, Step
from storage.lock import Lock
from storage.s3.store import S3Store
from storage.store import Protection, Written
from tests.support.audio import wav
from tests.support.bench import NOW, Bench, make_bench
from tests.support.s3 import eyes, moto_can, new_bucket, rgw_can
from tests.support.waiting import PATIENCE
from worker import placing
from worker.expiry import Expired, expire
from worker.model import Recording
from worker.outcome import Fate
from worker.pipeline import archive_one
from worker.sweep import sweep

MODES = list(LockMode)
BODY = b"RIFF"
HASH = sha256(BODY).hexdigest()
FIVE_MIB = 5 * 1024 * 1024
SOON = datetime.now(UTC).replace(microsecond=0) + timedelta(days=2)
LATER = SOON + timedelta(days=2)
POLICY = Retention(LockMode.GOVERNANCE, default=Period(days=30), expire=True)


class Impatient(SystemClock):
    """The machine's own time, which the servers believe, without any waiting for what only other workers would do."""

    async def sleep(self, seconds: float) -> None:
        """Let others have their turn."""
        await asyncio.sleep(0)


@dataclass
class Trial:
    """One bucket with Object Lock: callvault's own store, and somebody else's client with the rights of its owner."""

    archive: Archive
    store: S3Store
    mode: LockMode

    @property
    def s3(self) -> Any:
        return eyes(self.archive)

    async def put(self, *, days: bool = True, legal_hold: bool = False) -> Written:
        """Write an object `a` in one request, locked for days or not at all."""
        lock = Lock(self.mode, SOON) if days else None
        return await self.store.put(
            "a", BODY, sha256=HASH, content_type="audio/wav", create_only=False, lock=lock, legal_hold=legal_hold
        )

    async def put_in_parts(self) -> Written:
        """Write it in parts."""
        async with await self.store.upload("a", content_type="audio/wav", lock=Lock(self.mode, SOON)) as upload:
            await upload.part(BODY, HASH)
            return await upload.complete()

    def named(self, version_id: str | None) -> dict[str, Any]:
        """Return what names a version of it."""
        return {"Bucket": self.archive.bucket, "Key": "a", "VersionId": version_id}

    def there(self) -> set[str]:
        """Return the versions there are of it, delete markers left out."""
        return {
            row["VersionId"] for row in self.s3.list_object_versions(Bucket=self.archive.bucket).get("Versions", [])
        }

    async def gone_at(self, version: str | None) -> datetime:
        """Ask for a version to be destroyed until the store does it; return when that was."""
        ends = time.monotonic() + PATIENCE
        while time.monotonic() < ends:
            try:
                await self.store.delete_version("a", version)
            except VersionLocked:
                await asyncio.sleep(0.1)  # the store's own clock decides: there is nothing to wait on
            else:
                return datetime.now(UTC)
        raise AssertionError("the lock never ended")


def denied(call: Callable[..., object], **arguments: Any) -> bool:
    """Tell whether the owner's request is refused because of a lock."""
    try:
        call(**arguments)
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] == 403:
            return True
        raise
    return False


async def lock_shortly(store: S3Store, mode: LockMode, *versions: tuple[str, str | None]) -> datetime:
    """Have versions locked for a few seconds, more where the machine is slow; return until when."""
    for seconds in (3, 10, 30):
        until = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=seconds)
        try:
            for key, version in versions:
                await store.extend_lock(key, version, Lock(mode, until))
        except StoreRefused:
            continue  # the date had passed before it arrived
        return until
    raise AssertionError("this machine is too slow to lock anything for half a minute")


async def one_put_is_locked(trial: Trial) -> bool:
    """Mode and date are on the version written in one request, as somebody else sees it."""
    told = trial.s3.head_object(**trial.named((await trial.put()).version_id))
    return (told["ObjectLockMode"], told["ObjectLockRetainUntilDate"]) == (trial.mode.upper(), SOON)


async def parts_are_locked(trial: Trial) -> bool:
    """And on the one written in parts, where both servers drop the headers and callvault locks it again."""
    told = trial.s3.head_object(**trial.named((await trial.put_in_parts()).version_id))
    return (told["ObjectLockMode"], told["ObjectLockRetainUntilDate"]) == (trial.mode.upper(), SOON)


async def deletion_fails(trial: Trial) -> bool:
    """A locked version is deleted neither by callvault nor by the owner."""
    version = (await trial.put()).version_id
    with pytest.raises(VersionLocked, match=f"under {trial.mode} until"):
        await trial.store.delete_version("a", version)
    return denied(trial.s3.delete_object, **trial.named(version)) and trial.there() == {version}


async def bypass_fails(trial: Trial) -> bool:
    """Not even by the owner who asks to bypass the lock: in compliance mode alone."""
    version = (await trial.put()).version_id
    return denied(trial.s3.delete_object, **trial.named(version), BypassGovernanceRetention=True)


async def hiding_destroys_nothing(trial: Trial) -> bool:
    """A deletion without a version puts a delete marker there; the version stays and is locked."""
    version = (await trial.put()).version_id
    trial.s3.delete_object(Bucket=trial.archive.bucket, Key="a")
    return trial.there() == {version} and (await trial.store.protection("a", version)).lock == Lock(trial.mode, SOON)


async def overwriting_destroys_nothing(trial: Trial) -> bool:
    """A write over it makes another version; the old one stays and is locked."""
    version = (await trial.put()).version_id
    trial.s3.put_object(Bucket=trial.archive.bucket, Key="a", Body=b"other", ChecksumAlgorithm="SHA256")
    return version in trial.there() and (await trial.store.protection("a", version)).lock == Lock(trial.mode, SOON)


async def shortening_fails(trial: Trial) -> bool:
    """A lock is not given an earlier end."""
    version = (await trial.put()).version_id
    sooner = {"Mode": trial.mode.upper(), "RetainUntilDate": SOON - timedelta(days=1)}
    return denied(trial.s3.put_object_retention, **trial.named(version), Retention=sooner)


async def changing_the_mode_fails(trial: Trial) -> bool:
    """Nor another mode, even with a later end."""
    version = (await trial.put()).version_id
    (other,) = set(MODES) - {trial.mode}
    changed = {"Mode": other.upper(), "RetainUntilDate": LATER}
    return denied(trial.s3.put_object_retention, **trial.named(version), Retention=changed)


async def extending_works(trial: Trial) -> bool:
    """A later end is given to it by callvault."""
    version = (await trial.put()).version_id
    return await trial.store.extend_lock("a", version, Lock(trial.mode, LATER)) == Lock(trial.mode, LATER)


async def an_end_is_an_end(trial: Trial) -> bool:
    """A version can be destroyed when its lock has ended, and not before; a twin that is held cannot.

    When the hold is lifted, nothing is left that protects it.
    """
    free = (await trial.put(days=False)).version_id
    held = (await trial.put(days=False, legal_hold=True)).version_id
    until = await lock_shortly(trial.store, trial.mode, ("a", free), ("a", held))
    gone_at = await trial.gone_at(free)
    assert gone_at >= until
    assert await trial.store.protection("a", held) == Protection(Lock(trial.mode, until), legal_hold=True)
    with pytest.raises(VersionLocked, match="legal hold"):
        await trial.store.delete_version("a", held)
    held_still = denied(trial.s3.delete_object, **trial.named(held)) and trial.there() == {held}
    await trial.store.set_legal_hold("a", held, on=False)
    await trial.store.delete_version("a", held)
    return held_still and not trial.there()


Row = Callable[[Trial], Awaitable[bool]]
BOTH, NEITHER = frozenset(MODES), frozenset[LockMode]()
FIRM = frozenset({LockMode.COMPLIANCE})

# what is tried, in which modes it holds on RGW and on moto
TABLE: list[tuple[Row, frozenset[LockMode], frozenset[LockMode]]] = [
    (one_put_is_locked, BOTH, BOTH),
    (parts_are_locked, BOTH, BOTH),
    (deletion_fails, BOTH, BOTH),
    (bypass_fails, FIRM, FIRM),
    (hiding_destroys_nothing, BOTH, BOTH),
    (overwriting_destroys_nothing, BOTH, BOTH),
    (shortening_fails, BOTH, NEITHER),
    (changing_the_mode_fails, BOTH, NEITHER),
    (extending_works, BOTH, BOTH),
    (an_end_is_an_end, BOTH, BOTH),
]


@pytest.fixture(params=["rgw", "s3"])
def server(request: pytest.FixtureRequest) -> tuple[str, bool]:
    """Return the URL of each server in turn, and whether it is the real one."""
    return request.getfixturevalue(request.param), request.param == "rgw"


@asynccontextmanager
async def opened(server: tuple[str, bool]) -> AsyncIterator[tuple[Archive, S3Store]]:
    """Make a bucket with Object Lock and open it."""
    url, real = server
    archive = new_bucket(url, object_lock=True)
    can = (rgw_can if real else moto_can)(versioned=True, object_lock=True)
    store = S3Store(archive, SystemClock(), capabilities=can, page_size=3)
    try:
        yield archive, store
    finally:
        await store.aclose()


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row[0].__name__)
async def test_object_lock_holds_what_it_promises(
    server: tuple[str, bool], row: tuple[Row, frozenset[LockMode], frozenset[LockMode]]
) -> None:
    """In governance and in compliance mode, exactly as the table says of each server."""
    trial, *expected = row
    held = set()
    for mode in MODES:
        async with opened(server) as (archive, store):
            if await trial(Trial(archive, store, mode)):
                held.add(mode)
    print(f"{'RGW' if server[1] else 'moto'}: {trial.__name__}: {', '.join(sorted(held)) or 'in no mode'}")  # noqa: T201 - the table
    assert held == expected[0 if server[1] else 1]


class Tended:
    """A bucket with recordings that callvault archives and lets expire, at the machine's own time."""

    def __init__(self, archive: Archive, store: S3Store, folder: Path) -> None:
        self.archive = archive
        self.store = store
        clock = Impatient()
        self.bench: Bench = make_bench(folder, store=store, retention=POLICY, part_bytes=FIVE_MIB)
        self.services = self.bench.services
        self.services.clock = self.services.matters._clock = clock
        self.step = Step(at=clock.now(), by="counsel", reason="dispute")

    async def add(self, number: int, *, days_ago: float = 400, body: bytes | None = None) -> Recording:
        """Have a recording made and archived; it is kept for thirty days."""
        ago = (NOW - datetime.now(UTC)) / timedelta(minutes=1)  # the bench counts from a time of its own
        recording = self.bench.vendor.add(number, minutes_ago=ago + days_ago * 24 * 60, body=body)
        assert (await archive_one(self.services, self.bench.desk, recording, None)).fate is Fate.ARCHIVED
        return recording

    async def expire(self) -> Expired:
        """Run expiry."""
        return await expire(self.services, by="tester@test", limit=1000)

    def versions(self, prefix: str = "v1/recordings/") -> set[tuple[str, str]]:
        """Return every version in the bucket, as somebody else sees it; there must be no delete marker."""
        listed = eyes(self.archive).list_object_versions(Bucket=self.archive.bucket, Prefix=prefix)
        assert not listed["IsTruncated"]
        assert not listed.get("DeleteMarkers")
        return {(row["Key"], row["VersionId"]) for row in listed.get("Versions", [])}

    def of(self, *recordings: Recording) -> set[tuple[str, str]]:
        """Return the versions that belong to some recordings."""
        names = tuple(f"/{recording.id}." for recording in recordings)
        return {row for row in self.versions() if any(name in row[0] for name in names)}

    async def certified(self, report: Expired) -> set[tuple[str, str | None]]:
        """Return the versions that the certificates of a run say are destroyed."""
        found: set[tuple[str, str | None]] = set()
        for key in report.certificates:
            certificate = Certificate.model_validate_json(await self.store.get(key, max_bytes=10**6))
            assert certificate.state == "complete"
            found |= {(version.key, version.version_id) for item in certificate.recordings for version in item.versions}
        return found


async def test_expiry_destroys_exactly_what_is_due(server: tuple[str, bool], tmp_path: Path) -> None:
    """Every version of what is due and no other, small and large; the young, locked and held stay until they may go.

    What is destroyed is what the certificates name, and no delete marker is left behind.
    """
    async with opened(server) as (archive, store):
        tended = Tended(archive, store, tmp_path)
        old, large = await tended.add(1), await tended.add(2, body=wav(700))
        young = await tended.add(3, days_ago=1)
        locked, held = await tended.add(4), await tended.add(5)
        for key, version in tended.of(locked):
            await store.extend_lock(key, version, Lock(LockMode.COMPLIANCE, SOON))
        await placing.place(tended.services, "smith", Scope(recordings=(f"hq/{held.id}",)), tended.step)
        swept = await sweep(tended.services, "smith")
        assert swept is not None
        assert swept.done
        for recording, kept in ((young, "governance"), (locked, "compliance")):
            for key, version in tended.of(recording):
                told = (await store.protection(key, version)).lock
                assert told is not None
                assert told.mode == kept
        assert [(await store.protection(key, version)).legal_hold for key, version in tended.of(held)] == [True, True]

        before, due = tended.versions(), tended.of(old, large)
        assert (len(before), len(due)) == (10, 4)
        report = await tended.expire()
        figures = report.sources["hq"]
        assert (figures.destroyed, figures.held, figures.locked, report.errors) == (2, 1, 1, [])
        assert before - tended.versions() == due
        assert tended.versions() < before
        assert await tended.certified(report) == due

        assert (await tended.expire()).destroyed == 0
        await placing.release(tended.services, "smith", tended.step)
        await sweep(tended.services, "smith")
        freed = tended.of(held)
        report = await tended.expire()
        assert (report.destroyed, report.errors) == (1, [])
        assert await tended.certified(report) == freed
        assert tended.versions() == before - due - freed
        assert len(tended.versions("v1/destroyed/")) == 3


async def test_expiry_waits_for_the_last_second_of_a_lock(rgw: str, tmp_path: Path) -> None:
    """Asked again and again, it destroys a recording after its lock has ended by the store's clock, never before."""
    async with opened((rgw, True)) as (archive, store):
        tended = Tended(archive, store, tmp_path)
        recording = await tended.add(1)
        until = await lock_shortly(store, LockMode.COMPLIANCE, *tended.of(recording))
        ends = time.monotonic() + PATIENCE
        while not (report := await tended.expire()).destroyed and time.monotonic() < ends:
            assert report.sources["hq"].locked == 1
            assert len(tended.of(recording)) == 2
            await asyncio.sleep(0.2)  # the store's own clock decides: there is nothing to wait on
        assert report.destroyed == 1
        assert datetime.now(UTC) >= until
        assert not tended.versions()
