"""The twelve promises, one test each, named after them. Each was seen to fail when the promise was broken.

What else there is to say about a promise is tested nearer to where it is kept.
"""

import asyncio
import hashlib
import json
import re
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from config.clock import SystemClock
from config.settings import Source
from storage.keys import Keys, rid, utc_date
from storage.memory import MemoryStore
from storage.s3.store import S3Store
from storage.sidecar import CallFacts, GapReason
from storage.state_redis import RedisState
from tests.integration.test_run import VENDORS, calls
from tests.support.bench import Bench, FakeStream, make_bench
from tests.support.other_origin import OtherOrigin
from tests.support.s3 import moto, new_bucket
from tests.support.simulator import Simulator
from tests.support.site import Site
from tests.support.valkey import Valkey
from worker.errors import GiveUp, Retry, Truncated
from worker.handover import archive_batch
from worker.model import ClaimedHash
from worker.passes import run_source
from worker.polling import poll
from worker.runtime import make_services


@pytest.fixture(autouse=True)
def _no_long_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the pauses between tries."""
    monkeypatch.setattr("worker.pipeline._PAUSE", 0.01)
    monkeypatch.setattr("worker.rest.client._BACKOFF", 0.01)


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """Run moto's S3; return its URL."""
    with moto() as url:
        yield url


@pytest.fixture
def five(s3: str, tmp_path: Path) -> Iterator[Site]:
    """Return a site with all five phone systems, six calls each."""
    with ExitStack() as stack:
        sources = {kind.vendor: stack.enter_context(kind(calls(kind.vendor))) for kind in VENDORS}
        yield Site(tmp_path, new_bucket(s3), sources, {}, {})


def audit(site: Site) -> set[tuple[str, str]]:
    """Check every sidecar against its media and the phone system's truth; return what is held."""
    held = set()
    keys = site.listing()
    for key in keys:
        if not (key.startswith("v1/recordings/") and key.endswith(".json")):
            continue
        sidecar = json.loads(site.read(key))
        call = site.sources[sidecar["source"]].call(sidecar["recording_id"])
        assert call is not None
        body = site.read(sidecar["media"]["key"])
        assert body == call.media
        assert sidecar["media"]["sha256"] == hashlib.sha256(body).hexdigest()
        held.add((sidecar["source"], call.id))
    media = [k for k in keys if k.startswith("v1/recordings/") and not k.endswith(".json")]
    assert len(media) == len(held)
    return held


def test_promise_1_nothing_unverified_is_ever_visible(five: Site) -> None:
    """Whatever a phone system sends that is cut, wrong or no audio, recordings/ holds verified bytes only."""
    for simulator in five.sources.values():
        for call, kind in zip(
            simulator.calls, ("truncate", "cut_chunked", "answer", "reset", "cut_gzip"), strict=False
        ):
            simulator.fault(kind, recording=call.id, body=b"<html>Sign in</html>")
    imagicle = five.sources["imagicle"]
    imagicle.calls[5].hash = "wrong"
    five.run()
    assert audit(five) == {(n, s.calls[5].id) for n, s in five.sources.items() if n != "imagicle"}


async def test_promise_2_the_sidecar_is_the_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The media is there, whole, before its sidecar is begun; without the sidecar the recording is not held."""
    bench = make_bench(tmp_path)
    recording = bench.vendor.add(1)
    put, order = bench.store.put, []

    async def watched(key: str, body: Any, **more: Any) -> Any:
        if key.endswith(".json"):
            media = Keys().media("hq", utc_date(recording.started_at), rid(recording.id), "wav")
            order.append(await bench.store.get(media, max_bytes=10**6) == bench.vendor.bodies[recording.id])
            if len(order) == 1:
                raise Death
        return await put(key, body, **more)

    monkeypatch.setattr(bench.store, "put", watched)
    with pytest.raises(Death):
        await run_source(bench.services, bench.source)
    report = await run_source(bench.services, bench.source)
    assert (report.held, report.archived, order) == (0, 1, [True, True])


async def test_promise_3_archived_objects_are_never_overwritten(tmp_path: Path) -> None:
    """Other bytes under the same id leave what is there as it is, though the sidecar was lost: an incident."""
    bench = make_bench(tmp_path, store=MemoryStore(versioned=True))
    recording = bench.vendor.add(1)
    await run_source(bench.services, bench.source)
    media = (await bench.sidecar(recording)).media
    del bench.store.versions_of[Keys().sidecar("hq", utc_date(recording.started_at), "rec-1")]
    later = make_bench(tmp_path / "later", store=bench.store)
    later.vendor.add(1, body=b"RIFF\x40\x00\x00\x00WAVE" + bytes(60))
    report = await run_source(later.services, later.source)
    assert report.gaps == 1
    assert (await later.gap(recording)).reason is GapReason.CONFLICT
    assert [len(versions) for key, versions in bench.store.versions_of.items() if "recordings" in key] == [1]
    assert hashlib.sha256(await bench.store.get(media.key, max_bytes=10**6)).hexdigest() == media.sha256


class Death(BaseException):
    """Stands for SIGKILL: nothing of ours catches it."""


def deadly(bench: Bench, monkeypatch: pytest.MonkeyPatch, steps: int) -> Callable[[], int]:
    """Make the bench die before its n-th request to bucket, state or phone system; return how many were made."""
    made = 0

    def wrap(target: Any, name: str) -> None:
        real = getattr(target, name)

        async def counted(*arguments: Any, **more: Any) -> Any:
            nonlocal made
            made += 1
            if made == steps:
                raise Death
            return await real(*arguments, **more)

        monkeypatch.setattr(target, name, counted)

    for name in ("put", "head", "get"):
        wrap(bench.store, name)
    for name in ("attempt", "save_attempt", "add_held", "stash", "unstash", "note", "lease"):
        wrap(bench.services.state, name)
    for name in ("list_page", "describe", "open_media"):
        wrap(bench.vendor, name)
    return lambda: made


async def scheduled(bench: Bench) -> None:
    """Poll once and work off the batches."""
    queue: list[str] = []
    await poll(bench.services, bench.source, lambda _, batch: queue.append(batch), lambda *_: None)
    while queue:
        await archive_batch(
            bench.services, bench.source, queue.pop(0), lambda _, batch: queue.append(batch), lambda *_: None
        )


@pytest.mark.parametrize("way", ["run", "scheduled"])
async def test_promise_4_any_task_may_die_anywhere_and_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """Killed before each single request in turn, the next pass converges: all held once, nothing half."""
    work: Callable[[Bench], Awaitable[Any]] = (
        scheduled if way == "scheduled" else lambda bench: run_source(bench.services, bench.source)
    )
    step = 0
    while True:
        step += 1
        bench = make_bench(tmp_path / str(step), store=MemoryStore(versioned=True), processes=2)
        for number in range(4):
            bench.vendor.add(number, minutes_ago=60 + number)
        bench.vendor.script["rec-2"] = [GiveUp("403", GapReason.FORBIDDEN)] * 9
        with monkeypatch.context() as patch:
            made = deadly(bench, patch, step)
            try:
                await work(bench)
            except Death:
                pass
            else:
                assert made() < step
                break
        await bench.services.state.drop("chain:hq:poll")  # as it drops itself three minutes later
        await work(bench)
        recordings = {k: v for k, v in bench.store.versions_of.items() if "/recordings/" in k}
        assert len(recordings) == 6, step
        assert {len(versions) for versions in recordings.values()} == {1}
        assert (await bench.gap(bench.vendor.recordings[2])).reason == "forbidden"
    assert step > 15


async def test_promise_5_the_bucket_is_the_truth(tmp_path: Path, s3: str, valkey: Valkey) -> None:
    """Redis is flushed before every batch and every poll: nothing is lost, nothing archived twice."""
    with VENDORS[1](calls("imagicle", 12)) as simulator:
        site = Site(tmp_path, new_bucket(s3), {"imagicle": simulator}, {}, {}, broker=valkey.url)
        settings = _settings(site)
        queue: list[str] = []
        for _ in range(4):
            valkey.flush()
            state = RedisState(valkey.url, settings.archive.namespace, SystemClock(), grace=0)
            services = make_services(settings, SystemClock(), S3Store(settings.archive, SystemClock()), state)
            async with services:
                source = settings.sources[0]
                await poll(services, source, lambda _, batch: queue.append(batch), lambda *_: None)
                again = list(queue)
                while queue:
                    await archive_batch(services, source, queue.pop(0), lambda *_: None, lambda *_: None)
                for batch in again:  # and every message comes a second time, after another flush
                    valkey.flush()
                    await archive_batch(services, source, batch, lambda *_: None, lambda *_: None)
        assert len(audit(site)) == 12
        assert set(simulator.downloads.values()) == {1}


def _settings(site: Site) -> Any:
    from config.load import load
    from worker.vendors import vendor_keys

    return load(site.write(), vendor_keys(), site.environ)


async def test_promise_6_what_is_finished_ends_as_held_or_gap(tmp_path: Path) -> None:
    """Whatever goes wrong with each of them, in the end every listed recording is held or on record."""
    bench = make_bench(tmp_path)
    bench.change(give_up_after=timedelta(hours=1))
    troubles: list[Any] = [
        None, Retry("reset"), Truncated("cut"), GiveUp("403", GapReason.FORBIDDEN), ZeroDivisionError("a bug"),
        FakeStream(b"<html>"), FakeStream(b""), FakeStream(b"\x00\x01" * 99, framed=False),
    ]  # fmt: skip
    for number, trouble in enumerate(troubles):
        bench.vendor.add(number)
        bench.vendor.script[f"rec-{number}"] = [trouble] * 500
    bench.vendor.add(98, claimed_hash=ClaimedHash("SHA256", "0" * 64))
    bench.vendor.add(99, id="../\x00 odd / " + "x" * 2000)
    for _ in range(12):
        await run_source(bench.services, bench.source)
        bench.clock.advance(1800)
    keys = Keys()
    there = set(await bench.everything())
    for recording in bench.vendor.recordings:
        day, name = utc_date(recording.started_at), rid(recording.id)
        assert (keys.sidecar("hq", day, name) in there) != (keys.gap("hq", day, name) in there), recording.id


async def test_promise_7_one_sources_trouble_never_delays_another(tmp_path: Path) -> None:
    """While one source hangs in the middle of a download, another is archived to its end."""
    bench = make_bench(tmp_path)
    other = bench.source.model_copy(update={"name": "other"})
    bench.services.settings = bench.services.settings.model_copy(update={"sources": (bench.source, other)})
    stuck = make_bench(tmp_path / "stuck")
    bench.services._desks["other"] = stuck.services.desk(stuck.source)
    hanging, reached = asyncio.Event(), asyncio.Event()

    async def hang() -> Any:
        reached.set()
        await hanging.wait()

    for number in range(20):
        stuck.vendor.add(number)
        stuck.vendor.script[f"rec-{number}"] = [hang]
        bench.vendor.add(number)
    slow = asyncio.create_task(run_source(bench.services, other))
    await reached.wait()
    async with asyncio.timeout(30):
        report = await run_source(bench.services, bench.source)
    assert report.archived == 20
    assert not slow.done()
    hanging.set()
    slow.cancel()
    await asyncio.gather(slow, return_exceptions=True)


async def test_promise_8_never_more_than_max_connections(tmp_path: Path, s3: str, valkey: Valkey) -> None:
    """Two workers that share a source count each other's requests."""
    valkey.flush()
    with VENDORS[3](calls("xivo", 20)) as simulator:
        simulator.fault("linger")
        extra = {"xivo": {"max_connections": 3}}
        site = Site(tmp_path, new_bucket(s3), {"xivo": simulator}, {}, extra, broker=valkey.url)
        settings = _settings(site)

        async def one_worker() -> None:
            state = RedisState(valkey.url, settings.archive.namespace, SystemClock(), grace=0)
            store = S3Store(settings.archive, SystemClock())
            async with make_services(settings, SystemClock(), store, state) as services:
                await run_source(services, settings.sources[0])

        await asyncio.gather(one_worker(), one_worker())
        assert len(audit(site)) == 20
        assert simulator.most_at_once == 3


def test_promise_10_a_credential_goes_only_to_its_own_origin(five: Site) -> None:
    """Redirects and links elsewhere are not followed, and no secret is in log, bucket, state or message."""
    with OtherOrigin() as elsewhere:
        for simulator in five.sources.values():
            away = {"Location": f"{elsewhere.url}/steal?token=x"}
            simulator.fault("redirect", recording=simulator.calls[0].id, headers=away)
            simulator.fault("status", recording=simulator.calls[1].id, status=500)
        result = five.callvault("run", "--log-level", "debug")
        assert elsewhere.requests == []
    secrets = [
        value
        for simulator in five.sources.values()
        for key, value in simulator.settings().items()
        if key in ("password", "token", "secret", "api_key")
    ]
    written = result.output + "".join(five.listing())
    written += "".join(five.read(key).decode("latin-1") for key in five.listing() if key.endswith(".json"))
    assert [gap["reason"] for gap in five.gaps()] == ["foreign_origin"] * 5
    assert not [secret for secret in secrets if secret in written]


WRITES = re.compile(r"action=(DeleteCall|KeepCall|PutMedia|AddMarker|AttachMetaData)|attached_data", re.IGNORECASE)


def test_promise_11_nothing_is_deleted_at_the_source(five: Site) -> None:
    """No phone system ever sees another method than GET and POST, or one of its calls that change anything."""
    five.run()
    five.run()
    for simulator in five.sources.values():
        assert {seen.method for seen in simulator.requests} <= {"GET", "POST"}
        assert not [s for s in simulator.requests if WRITES.search(f"{s.path}?action={s.query.get('action', '')}")]
    code = Path(__file__).parents[2] / "worker"
    assert not [p for p in code.rglob("*.py") if re.search(r'"DELETE"|DeleteCall', p.read_text())]


def test_promise_12_every_time_is_aware_and_utc(five: Site) -> None:
    """Sidecars have UTC with Z, the vendor's own words beside it; a naive time cannot enter a record."""
    five.run()
    for name, simulator in five.sources.items():
        for call in simulator.calls:
            sidecar = five.sidecar(name, call)
            text = sidecar["call"]["started_at"]
            assert text.endswith("Z")
            assert datetime.fromisoformat(text) == call.started_at
    printed = five.sources["xivo"].calls[0]
    record = five.sidecar("xivo", printed)["vendor_record"]
    assert datetime.fromisoformat(record["start"]).tzinfo is None
    with pytest.raises(ValueError, match="timezone"):
        CallFacts(started_at=datetime(2026, 1, 1))  # noqa: DTZ001 - that it is refused is the point
    assert CallFacts(started_at=datetime(2026, 1, 1, tzinfo=UTC)).started_at is not None
    assert isinstance(simulator, Simulator)
    assert Source.model_fields["start_from"].annotation == datetime | None
