"""One pass in this process, and how a source stands after it."""

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import worker.passes
from storage.errors import StoreUnavailable
from storage.sidecar import GapReason
from tests.support.bench import NOW, Bench, make_bench
from worker.checking import check_bucket, check_source
from worker.errors import GiveUp, Retry, StopSource
from worker.housekeeping import STALE, clean_up
from worker.index import archived_watermark
from worker.model import Unreadable, Window
from worker.passes import run_source
from worker.status import standing


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """Return a workbench with one source, hq."""
    return make_bench(tmp_path)


class Looker:
    """Remembers what a progress bar would be told."""

    def __init__(self) -> None:
        self.due = 0
        self.done: list[str] = []

    def planned(self, source: str, count: int) -> None:
        self.due += count

    def settled(self, source: str, recording: Any, outcome: Any) -> None:
        self.done.append(recording.id)


async def test_a_pass_archives_what_is_due_and_a_second_one_nothing(bench: Bench) -> None:
    """The second pass finds everything held and downloads nothing again."""
    for number in range(5):
        bench.vendor.add(number)
    looker = Looker()
    first = await run_source(bench.services, bench.source, watcher=looker)
    assert (first.listed, first.archived, first.watermark) == (5, 5, NOW - timedelta(minutes=0))
    assert (looker.due, len(looker.done)) == (5, 5)
    second = await run_source(bench.services, bench.source)
    assert (second.listed, second.archived, second.held) == (5, 0, 5)
    assert len(bench.vendor.opened) == 5


async def test_a_late_recording_inside_lookback_is_archived(bench: Bench) -> None:
    """It turns up behind the watermark, and the next pass finds it."""
    bench.vendor.add(1, minutes_ago=10)
    await run_source(bench.services, bench.source)
    bench.clock.advance(3600)
    bench.vendor.add(2, minutes_ago=40 * 60)
    assert (await run_source(bench.services, bench.source)).archived == 1


async def test_a_backlog_is_archived_in_one_pass_in_bounded_steps(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Oldest first, no more than the limit in memory, each counted once; a failure on the way holds the watermark."""
    monkeypatch.setattr(worker.passes, "LIMIT", 4)
    for number in range(15):
        bench.vendor.add(number, minutes_ago=100 - number)
    bench.vendor.script["rec-5"] = [Retry("reset")] * 3
    report = await run_source(bench.services, bench.source)
    assert (report.listed, report.archived, report.pending, report.held) == (15, 14, 1, 0)
    assert report.watermark == NOW - timedelta(minutes=95)
    mark = await archived_watermark(bench.services, bench.source)
    assert mark is not None
    assert mark <= NOW - timedelta(minutes=95)


async def test_a_span_is_archived_exactly_and_moves_no_watermark(bench: Bench) -> None:
    """start_from, lookback and the watermark play no part; sidecars of a span carry no watermark."""
    bench.change(start_from=NOW - timedelta(minutes=1))
    inside = bench.vendor.add(1, minutes_ago=60)
    bench.vendor.add(2, minutes_ago=70)
    span = Window(NOW - timedelta(minutes=60), NOW - timedelta(minutes=50))
    report = await run_source(bench.services, bench.source, span)
    assert (report.listed, report.archived, report.watermark) == (1, 1, None)
    assert (await bench.sidecar(inside)).recording_id == "rec-1"
    assert await archived_watermark(bench.services, bench.source) is None


async def test_trouble_with_the_source_is_in_the_report(bench: Bench) -> None:
    """A source that cannot be listed is unusable; one that fails later is not."""
    bench.vendor.listing = [StopSource("password refused")]
    report = await run_source(bench.services, bench.source)
    assert (report.errors, report.unusable) == (["password refused"], True)
    bench.vendor.add(1)
    bench.vendor.script["rec-1"] = [StopSource("no rights")]
    report = await run_source(bench.services, bench.source)
    assert (report.errors, report.unusable) == (["no rights"], False)


async def test_trouble_with_the_bucket_is_in_the_report(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bucket that is down ends the pass."""

    async def down(*_: Any, **__: Any) -> Any:
        raise StoreUnavailable("bucket down")

    bench.vendor.add(1)
    monkeypatch.setattr(bench.store, "put", down)
    report = await run_source(bench.services, bench.source)
    assert (report.errors, report.store_failed) == (["bucket down"], True)


async def test_unreadable_rows_are_gaps_or_errors(bench: Bench) -> None:
    """A row with an id is a gap and counts as listed; one without is a sentence."""
    bench.vendor.unreadable = (Unreadable("x", "no start", {}), Unreadable(None, "no id", {}))
    report = await run_source(bench.services, bench.source)
    assert (report.listed, report.gaps, report.gaps_on_record) == (1, 1, 1)
    assert "no id" in report.errors[0]


async def test_how_a_source_stands(bench: Bench) -> None:
    """Watermark, lag, held today, pending, gaps and the last error come from bucket and state."""
    empty = await standing(bench.services, bench.source)
    assert (empty.watermark, empty.lag_seconds, empty.held_today, empty.last_error) == (None, None, 0, "")
    bench.vendor.add(1)
    bench.vendor.add(2, minutes_ago=30)
    bench.vendor.script["rec-2"] = [GiveUp("403", GapReason.FORBIDDEN)]
    bench.vendor.add(3, minutes_ago=20)
    bench.vendor.script["rec-3"] = [Retry("reset by peer")] * 3
    await run_source(bench.services, bench.source)
    found = await standing(bench.services, bench.source)
    assert (found.held_today, found.pending, found.gaps) == (1, 1, 1)
    assert found.last_error == "reset by peer"
    assert found.lag_seconds is not None
    public = found.public()
    assert public["watermark"].startswith("2026-03-05T")
    assert public["last_poll_at"] is None
    await bench.services.state.note("poll:hq", {"at": NOW.isoformat(), "pending": "4", "error": "boom"})
    later = await standing(bench.services, bench.source)
    assert (later.pending, later.last_error, later.last_poll_at) == (4, "boom", NOW)


async def test_a_source_is_checked_by_asking_it(bench: Bench) -> None:
    """A page is listed; plain http and rows that cannot be read are notes; a refusal is told."""
    bench.vendor.add(1)
    bench.vendor.unreadable = (Unreadable("x", "no start", {}),)
    found = await check_source(bench.services, bench.source)
    assert found.ok
    assert "1 recording" in found.detail
    assert len(found.warnings) == 2
    bench.change(url="https://pbx.example.net")
    bench.vendor.listing = [StopSource("refused")]
    found = await check_source(bench.services, bench.source)
    assert (found.ok, found.detail, found.warnings) == (False, "refused", ())


async def test_a_bucket_is_checked_by_trying_it(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the store can do is told; one that cannot be used is a failure with its sentence."""
    found = await check_bucket(bench.services)
    assert found.ok
    assert "can be written" in found.detail

    async def down(*_: Any) -> Any:
        raise StoreUnavailable("no such bucket")

    monkeypatch.setattr(bench.store, "probe", down)
    found = await check_bucket(bench.services)
    assert (found.ok, found.detail) == (False, "no such bucket")


async def test_stale_uploads_are_taken_back(bench: Bench) -> None:
    """An unfinished upload of ours older than a day is aborted, a younger one is not."""
    await bench.store.upload("v1/recordings/old", content_type="audio/wav")
    bench.clock.advance(STALE.total_seconds() + 1)
    await bench.store.upload("v1/recordings/new", content_type="audio/wav")
    assert await clean_up(bench.services) == 1
    assert len(bench.store._uploads) == 1


async def test_services_open_a_desk_for_each_source_once(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A desk is made on first use from the source's own connector, and closed with everything else."""
    monkeypatch.setattr("worker.runtime.load_vendors", lambda: {"fake": _Fake})
    async with bench.services as services:
        services._desks.clear()
        desk = services.desk(bench.source)
        assert services.desk(bench.source) is desk
        await asyncio.sleep(0)
    assert services._desks == {}


class _Fake:
    from tests.support.bench import FakeVendor

    info = FakeVendor.info

    def __init__(self, rest: Any, source: Any) -> None:
        self.rest = rest
