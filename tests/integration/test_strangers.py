"""What strangers and older versions left in the bucket and in Redis: absent, or refused in words, never a crash."""

import json
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import redis

from storage.keys import Keys
from storage.memory import MemoryStore, Stored
from storage.sidecar import GapReason
from storage.state import StateRefused
from storage.state_redis import RedisState
from tests.support.bench import NOW, Bench, make_bench
from tests.support.clock import FakeClock
from tests.support.valkey import Valkey
from worker.chain import Chain
from worker.errors import GiveUp
from worker.handover import archive_batch
from worker.index import WATERMARK, archived_watermark
from worker.passes import run_source
from worker.polling import Polled, backfill_note, poll
from worker.span import current_window
from worker.status import standing

DAY = "date=2026-03-05"
HERE = f"v1/recordings/source=hq/{DAY}/"
P = "callvault:acme:"


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """Return a workbench with one source, hq, and a store that moves on."""
    return make_bench(tmp_path, store=MemoryStore(clock=FakeClock(NOW)))


async def lay(store: MemoryStore, key: str, body: bytes = b"", **metadata: str) -> None:
    """Write an object as anybody may."""
    store._write(key, Stored(body, "text/plain", metadata, NOW, None), create_only=False)


STRANGE = (
    HERE,
    f"{HERE}.json",
    f"{HERE}rec-1/x.json",
    f"{HERE}rec-1.backup.json",
    f"{HERE}rec-1.json.bak",
    f"{HERE}\n.json",
    f"{HERE}\u202e.json",
    f"{HERE}REC-1.json",
    "v1/recordings/source=hq/",
    "v1/recordings/source=hq/notes.txt",
    "v1/recordings/source=hq/date=tomorrow/rec-1.json",
    "v1/recordings/source=hq/zzz/rec-1.json",
    f"v1/gaps/source=hq/{DAY}/",
    f"v1/gaps/source=hq/{DAY}/rec-1",
    f"v1/gaps/source=hq/{DAY}/rec-1.wav",
    f"v1/gaps/source=hq/{DAY}/rec-1.json",
    f"v1/quarantine/source=hq/{DAY}/rec-1.\u00b2.wav",
    f"v1/quarantine/source=hq/{DAY}/rec-1.{'9' * 600}.wav",
    f"v1/quarantine/source=hq/{DAY}/rec-1.x",
    "v1",
    "v1/",
)


async def test_foreign_objects_are_nobodys_recordings(bench: Bench) -> None:
    """Odd keys under every folder of the layout hide no recording, stop no pass, and stay as they are."""
    for key in STRANGE:
        await lay(bench.store, key, b"\x00not ours", watermark="soon", listed="?")
    one = bench.vendor.add(1)
    refused = bench.vendor.add(2, body=b"")
    report = await run_source(bench.services, bench.source)
    assert (report.archived, report.gaps, report.held, report.errors) == (1, 1, 0, [])
    assert (await bench.sidecar(one)).recording_id == "rec-1"
    assert (await bench.gap(refused)).reason is GapReason.EMPTY
    assert {bench.store.versions_of[key][0].body for key in STRANGE} == {b"\x00not ours"}
    assert (await standing(bench.services, bench.source)).last_error == ""


@pytest.mark.parametrize("body", [b"", b"not JSON", b"[]", b"\xff\xfe", b"[" * 10_000, b" " * (17 * 1024 * 1024)])
async def test_a_foreign_gap_record_is_written_anew(bench: Bench, body: bytes) -> None:
    """Garbage under a gap's key, seventeen megabytes of it included, does not end the pass of its source."""
    await lay(bench.store, f"v1/gaps/source=hq/{DAY}/rec-1.json", body)
    one = bench.vendor.add(1)
    good = bench.vendor.add(2)
    bench.vendor.script["rec-1"] = [GiveUp("403", GapReason.FORBIDDEN)] * 3
    report = await run_source(bench.services, bench.source)
    assert (report.archived, report.gaps, report.store_failed) == (1, 1, False)
    assert (await bench.gap(one)).tries == 1
    assert (await bench.sidecar(good)).recording_id == "rec-2"


@pytest.mark.parametrize("body", [b"", b"not JSON", b"{}", b" " * (33 * 1024 * 1024)], ids=len)
async def test_a_foreign_sidecar_is_an_incident_of_one_recording(bench: Bench, body: bytes) -> None:
    """Somebody wrote to a sidecar's key while we downloaded: that is kept, ours goes to quarantine, others go on."""
    one, good = bench.vendor.add(1), bench.vendor.add(2)
    await bench.services.state.remember_held("hq", NOW.date(), [])  # the index saw the day before it was written
    await lay(bench.store, f"{HERE}rec-1.json", body)
    report = await run_source(bench.services, bench.source)
    assert (report.archived, report.gaps, report.store_failed) == (1, 1, False)
    assert (await bench.gap(one)).reason is GapReason.CONFLICT
    assert (await bench.sidecar(good)).recording_id == "rec-2"
    assert bench.store.versions_of[f"{HERE}rec-1.json"][-1].body == body


@pytest.mark.parametrize("mark", ["soon", "2026-03-05", "2026-03-05T10:00:00", "9999-12-31T23:59:59-14:00", "-"])
async def test_a_watermark_that_is_none_is_passed_over(bench: Bench, mark: str) -> None:
    """The watermark is read from sidecars that carry a time with its offset, behind any number of foreign folders."""
    for number in range(50):
        await lay(bench.store, f"v1/recordings/source=hq/zzz-{number}/rec-1.json")
    await lay(bench.store, f"{HERE}rec-1.json", **{WATERMARK: mark})
    assert await archived_watermark(bench.services, bench.source) is None
    await lay(bench.store, f"{HERE}rec-2.json", **{WATERMARK: (NOW - timedelta(days=3)).isoformat()})
    assert await archived_watermark(bench.services, bench.source) == NOW - timedelta(days=3)


# Redis


@pytest_asyncio.fixture
async def shared(tmp_path: Path, raw: redis.Redis, valkey: Valkey) -> AsyncIterator[Bench]:
    """Return a workbench whose state is a real Valkey."""
    clock = FakeClock(NOW)
    state = RedisState(valkey.url, "acme", clock, grace=0)
    yield make_bench(tmp_path, state=state, store=MemoryStore(clock=clock), processes=2)
    await state.aclose()


async def polled(bench: Bench) -> Polled:
    """Poll once and work off what comes of it."""
    queue: list[str] = []
    ended = await poll(bench.services, bench.source, lambda _, batch: queue.append(batch), lambda *_: None)
    while queue:
        await archive_batch(
            bench.services, bench.source, queue.pop(0), lambda _, batch: queue.append(batch), lambda *_: None
        )
    return ended


async def test_garbage_in_redis_counts_as_absent(shared: Bench, raw: redis.Redis) -> None:
    """Attempts, notes, marks and batches of other versions or nobody's change nothing of a poll and its batches."""
    one = shared.vendor.add(1)
    recordings: list[Any] = [{}, [], "x", 5, {"id": "a"}, {**one.to_json(), "call": {"started_at": None}}]
    good = {"first_try_at": "2026-03-05T11:00:00+00:00", "tries": 1, "not_before": "2026-03-05T11:00:00+00:00"}
    for number, told in enumerate(recordings):
        attempt = {**good, "error": "[/odd]", "crashes": 0, "recording": told}
        raw.hset(f"{P}attempts:hq", f"odd-{number}", json.dumps(attempt))
    raw.hset(f"{P}attempts:hq", "deep", "[" * 100_000)
    raw.hset(f"{P}attempts:hq", "late", json.dumps({**good, "first_try_at": "9999-12-31T23:59:59-14:00"}))
    raw.hset(f"{P}watermark:hq", mapping={"value": "soon", "fence": "high"})
    raw.hset(f"{P}pause:hq", mapping={"until": "9" * 40, "reason": "x"})
    raw.hset(f"{P}note:poll:hq", mapping={"pending": "many", "listed": "-", "at": "soon"})
    raw.hset(f"{P}note:{backfill_note(shared.source)}", mapping={"from": "x"})
    raw.hset(f"{P}note:gaps:hq:2026-03-05", mapping={"rec-1": "::", "": "x"})
    raw.set(f"{P}fence:poll:hq", "high")
    raw.sadd(f"{P}held:hq:2026-03-04", "", "\u2028", "x" * 10_000)
    assert await standing(shared.services, shared.source)
    assert (await current_window(shared.services, shared.source)).end == NOW
    assert await polled(shared) is Polled.DONE
    assert (await shared.sidecar(one)).recording_id == "rec-1"
    assert raw.hget(f"{P}watermark:hq", "value") != "soon"


@pytest.mark.parametrize(
    "body",
    [
        "",
        "{",
        "null",
        "[]",
        "5",
        "[" * 100_000,
        "{}",
        '{"recordings": 5}',
        '{"recordings": [5, {}], "watermark": "soon", "again": [1]}',
    ],
)
async def test_a_batch_of_garbage_is_over(shared: Bench, raw: redis.Redis, body: str) -> None:
    """Its message is done with, and the chain ends, so that the next poll begins another."""
    raw.set(f"{P}stash:batch:poll-0123456789abcdef.0", body)
    sent: list[Any] = []
    report = await archive_batch(
        shared.services, shared.source, "poll-0123456789abcdef.0", lambda *a: sent.append(a), lambda *a: sent.append(a)
    )
    assert report is None or report.listed == 0
    assert sent == []
    assert not await Chain.alive(shared.services.state, "hq", "poll")


@pytest.mark.parametrize("key", ["attempts:hq", "held:hq:2026-03-05", "watermark:hq", "pause:hq", "permits:hq"])
@pytest.mark.parametrize("kind", ["type", "bytes"])
async def test_what_is_of_another_kind_is_refused_by_name(shared: Bench, raw: redis.Redis, key: str, kind: str) -> None:
    """A key that holds something else is named, with what to do about it; after that everything goes on."""
    shared.vendor.add(1)
    if kind == "type":
        raw.lpush(f"{P}{key}", "x")
    else:
        _undecodable(raw, f"{P}{key}")
    asks = _asks(shared, key)
    if (kind, key) == ("bytes", "permits:hq"):
        await asks()  # only counted there, never read
        return
    with pytest.raises(StateRefused) as caught:
        await asks()
    assert f"something under {P}{key} that callvault did not write: delete that key" in str(caught.value)
    if key in ("attempts:hq", "watermark:hq"):
        with pytest.raises(StateRefused):
            await polled(shared)
    raw.delete(f"{P}{key}")
    assert await polled(shared) is Polled.DONE


def _undecodable(client: Any, key: str) -> None:
    """Write what is no UTF-8, in the form that belongs there."""
    if ":held:" in key:
        client.sadd(key, b"\xff\xfe")
    elif ":permits:" in key:
        client.zadd(key, {b"\xff\xfe": 1})
    else:
        client.hset(key, mapping=dict.fromkeys(("rec", "value", "until"), b"\xff\xfe"))


def _asks(bench: Bench, key: str) -> Any:
    state = bench.services.state
    return {
        "attempts": lambda: state.attempts("hq"),
        "held": lambda: state.held("hq", NOW.date()),
        "watermark": lambda: state.watermark("hq"),
        "pause": lambda: state.paused("hq"),
        "permits": lambda: state.acquire("hq", 1),
    }[key.partition(":")[0]]


def test_the_layout_reads_only_what_it_writes() -> None:
    """None of the strange keys is taken for one of ours, but for those that could be."""
    ours = [key for key in STRANGE if Keys().parse(key)]
    assert all(key.rpartition("/")[2].startswith(("rec-1.", "REC-1.")) for key in ours), ours
