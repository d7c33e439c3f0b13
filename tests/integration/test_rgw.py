"""callvault on a real S3 server, Ceph RGW: in a plain bucket, a versioned one, and one with Object Lock.

In the latter two RGW heeds no `If-None-Match`, so that only callvault itself keeps two workers from writing twice.
"""

import asyncio
from collections import Counter
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from config.clock import SystemClock
from config.settings import Archive
from storage.s3.store import S3Store
from storage.state_redis import RedisState
from storage.store import Capabilities
from tests.integration.conftest import MakeSite
from tests.support.audio import wav
from tests.support.bench import NOW, Bench, make_bench
from tests.support.s3 import eyes, new_bucket, rgw_can
from tests.support.simulator import Call
from tests.support.valkey import Valkey
from tests.support.xivo import SimulatedXivo
from worker.outcome import Fate
from worker.pipeline import archive_one

KINDS = {
    "plain": rgw_can(versioned=False, object_lock=False),
    "versioned": rgw_can(versioned=True, object_lock=False),
    "locked": rgw_can(versioned=True, object_lock=True),
}
WORKERS = 8
FIVE_MIB = 5 * 1024 * 1024


def bucket(rgw: str, can: Capabilities) -> Archive:
    """Make a bucket of this kind."""
    return new_bucket(rgw, versioned=can.versioned, object_lock=bool(can.object_lock))


def versions(archive: Archive) -> Counter[str]:
    """Count the versions of each key, delete markers included."""
    listed = eyes(archive).list_object_versions(Bucket=archive.bucket)
    assert not listed["IsTruncated"]
    return Counter(row["Key"] for row in listed.get("Versions", []) + listed.get("DeleteMarkers", []))


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_holds_everything_and_a_second_adds_nothing(make_site: MakeSite, rgw: str, kind: str) -> None:
    """Bytes and sidecars are there, once each and with their version; nothing of the probe stays."""
    archive = bucket(rgw, KINDS[kind])
    day_ago = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=20)
    calls = [Call(number=n, started_at=day_ago + timedelta(minutes=n)) for n in range(4)]
    calls.append(Call(number=9, started_at=day_ago, media=wav(700)))
    site = make_site({"hq": SimulatedXivo(calls)}, archive=archive, runtime={"part_bytes": FIVE_MIB})
    code, report = site.run()
    assert (code, report["archived"], report["errors"]) == (0, 5, [])
    once = versions(archive)
    assert len(once) == 10
    assert set(once.values()) == {1}
    for call in calls:
        media = site.sidecar("hq", call)["media"]
        assert site.read(media["key"]) == call.media
        told = eyes(archive).head_object(Bucket=archive.bucket, Key=media["key"]).get("VersionId")
        assert media["version_id"] == told
        assert (told is None) is (kind == "plain")
    code, report = site.run()
    assert (code, report["archived"], report["held"]) == (0, 0, 5)
    assert versions(archive) == once


@pytest.mark.parametrize("large", [False, True], ids=["small", "large"])
@pytest.mark.parametrize("kind", KINDS)
async def test_of_many_archivers_of_one_recording_one_writes(
    rgw: str, valkey: Valkey, tmp_path: Path, kind: str, large: bool
) -> None:
    """Eight workers at the same recording at once leave one version of media and sidecar, and no gap."""
    valkey.flush()
    archive = bucket(rgw, KINDS[kind])
    async with AsyncExitStack() as stack:
        benches = [_worker(archive, KINDS[kind], valkey.url, tmp_path / str(n)) for n in range(WORKERS)]
        for bench in benches:
            await stack.enter_async_context(bench.services)
        recordings = [bench.vendor.add(1, body=wav(700 if large else 1)) for bench in benches]
        outcomes = await asyncio.gather(
            *(archive_one(b.services, b.desk, r, NOW) for b, r in zip(benches, recordings, strict=True))
        )
        again = await archive_one(benches[0].services, benches[0].desk, recordings[0], NOW)
    fates = Counter(outcome.fate for outcome in outcomes)
    assert fates[Fate.ARCHIVED] == 1
    assert fates[Fate.HELD] + fates[Fate.PENDING] == WORKERS - 1
    assert not any(outcome.failed for outcome in outcomes)
    assert again.fate is Fate.HELD
    assert sorted(versions(archive).items()) == [
        ("v1/recordings/source=hq/date=2026-03-05/rec-1.json", 1),
        ("v1/recordings/source=hq/date=2026-03-05/rec-1.wav", 1),
    ]


def _worker(archive: Archive, can: Capabilities, state_url: str, folder: Path) -> Bench:
    """Return a worker with connections of its own to bucket and state; it has probed the bucket already."""
    clock = SystemClock()
    store = S3Store(archive, clock, capabilities=can)
    state = RedisState(state_url, archive.namespace, clock)
    return make_bench(folder, state=state, store=store, part_bytes=FIVE_MIB)
