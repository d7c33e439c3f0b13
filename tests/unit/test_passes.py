"""One pass in this process, and how a source stands after it."""

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import worker.passes
from storage.errors import StoreUnavailable
from storage.sidecar import GapReason
from storage.state import Attempt, StateUnavailable
from tests.support.bench import NOW, Bench, make_bench
from worker.checking import check_bucket, check_source
from worker.errors import GiveUp, Retry, StopSource
from worker.housekeeping import STALE, clean_up
from worker.index import archived_watermark
from worker.model import Unreadable, Window
from worker.passes import run_source
from worker.status import standing
from worker.steps import Step, listen


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


async def test_state_that_cannot_be_written_is_in_the_report(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unusable state_dir is told in a sentence, for every source by itself."""

    async def gone(*_: Any) -> Any:
        raise StateUnavailable("state_dir cannot be written")

    monkeypatch.setattr(bench.services.state, "attempts", gone)
    report = await run_source(bench.services, bench.source)
    assert (report.errors, report.store_failed) == (["state_dir cannot be written"], True)


async def test_a_bug_in_a_connector_is_in_the_report(bench: Bench) -> None:
    """The unforeseen ends this source's pass only, with its type named."""
    bench.vendor.listing = [KeyError("x")]
    report = await run_source(bench.services, bench.source)
    assert report.unusable
    assert "unexpected KeyError" in report.errors[0]
    bench.vendor.listing = [KeyError("x")]
    found = await check_source(bench.services, bench.source)
    assert not found.ok
    assert "unexpected KeyError" in found.detail


async def test_what_was_listed_before_the_listing_broke_is_archived(bench: Bench) -> None:
    """Page two is refused: page one is archived, the trouble told, and the watermark stays where the listing began."""
    bench.vendor.add(1)
    bench.vendor.pages = [StopSource("page two refused")]
    report = await run_source(bench.services, bench.source)
    assert (report.archived, report.unusable, report.errors) == (1, False, ["page two refused"])
    assert await archived_watermark(bench.services, bench.source) == NOW - timedelta(hours=48)


async def test_a_failing_recording_stays_in_view_without_any_watermark(bench: Bench) -> None:
    """It is tried until give_up_after, though lookback is shorter and the bucket holds nothing yet."""
    recording = bench.vendor.add(1, minutes_ago=60)
    bench.vendor.script["rec-1"] = [Retry("500")] * 999
    for _ in range(20):
        report = await run_source(bench.services, bench.source)
        assert report.listed == 1
        if report.gaps:
            break
        bench.clock.advance(12 * 3600)
    assert (await bench.gap(recording)).reason is GapReason.GAVE_UP


async def test_giving_up_counts_over_restarts(tmp_path: Path) -> None:
    """Each run is a process of its own; what the first one remembered in state_dir is what the last one counts from."""
    store = None
    for hours in range(0, 100, 12):
        bench = make_bench(tmp_path, store=store)
        store = bench.store
        bench.clock.advance(hours * 3600.0 + hours)  # the pauses between tries differ by seconds from run to run
        recording = bench.vendor.add(1, minutes_ago=60)
        bench.vendor.script["rec-1"] = [Retry("500")] * 99
        report = await run_source(bench.services, bench.source)
        if report.gaps:
            break
    gap = await bench.gap(recording)
    assert (hours, gap.reason, gap.tries) == (72, GapReason.GAVE_UP, 7)
    assert gap.first_seen_at - NOW < timedelta(minutes=1)


async def test_a_failing_recording_that_is_listed_no_more_becomes_a_gap(bench: Bench) -> None:
    """It leaves a trace: pending for as long as others would be, then a gap with its last error."""
    recording = bench.vendor.add(1, minutes_ago=60)
    bench.vendor.script["rec-1"] = [Retry("500")] * 999
    await run_source(bench.services, bench.source)
    bench.vendor.recordings.clear()
    report = await run_source(bench.services, bench.source)
    assert (report.listed, report.pending, report.gaps) == (0, 1, 0)
    await bench.services.state.save_attempt("hq", "unknown", Attempt(NOW, 1, NOW, "of another version"))
    bench.clock.advance(73 * 3600)
    report = await run_source(bench.services, bench.source)
    assert report.gaps == 1
    gap = await bench.gap(recording)
    assert "lists it no more" in gap.detail
    assert set(await bench.services.state.attempts("hq")) == {"unknown"}


async def test_rows_without_an_id_hold_the_watermark_and_are_told_in_few_words(bench: Bench) -> None:
    """Nobody knows what they were, so nothing after them counts as settled for as long as failures are waited for."""
    bench.vendor.unreadable = tuple(Unreadable(None, f"no id {n}", {"n": n}) for n in range(15))
    report = await run_source(bench.services, bench.source)
    assert len(report.errors) == 11
    assert "5 more rows" in report.errors[-1]
    assert report.watermark == NOW - timedelta(hours=48)


async def test_a_held_recording_whose_row_cannot_be_read_any_more_is_no_gap(bench: Bench) -> None:
    """A change of the vendor's format does not put gaps beside what is archived."""
    bench.vendor.add(1)
    await run_source(bench.services, bench.source)
    bench.vendor.recordings.clear()
    bench.vendor.unreadable = (Unreadable("rec-1", "start is no time", {}),)
    report = await run_source(bench.services, bench.source)
    assert (report.gaps, report.errors) == (0, [])


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


class Killed(BaseException):
    """The process is gone."""


@pytest.mark.parametrize("listed", [True, False])
@pytest.mark.parametrize("step", [Step.SIDECAR_WRITTEN, Step.GAP_WRITTEN])
async def test_a_death_before_a_retry_is_forgotten_leaves_no_retry_for_ever(
    tmp_path: Path, step: Step, *, listed: bool
) -> None:
    """Else windows would begin there from then on, `status` tell of it, and what is held become a gap once delisted."""
    bench = make_bench(tmp_path)
    recording = bench.vendor.add(1)
    forbidden = [GiveUp("no", GapReason.FORBIDDEN)] if step is Step.GAP_WRITTEN else []
    bench.vendor.script[recording.id] = [Retry("reset")] * 3 + forbidden
    assert (await run_source(bench.services, bench.source)).to_retry == 1

    def kill(at: Step) -> None:
        if at is step:
            raise Killed

    listen(kill)
    try:
        with pytest.raises(Killed):
            await run_source(bench.services, bench.source)
    finally:
        listen(None)
    before = await bench.everything()
    later = make_bench(tmp_path, store=bench.store)
    later.vendor.recordings = bench.vendor.recordings if listed else []
    later.clock.advance(100 * 3600)
    report = await run_source(later.services, later.source)
    assert (report.gaps, report.pending, report.held + report.gaps_on_record) == (0, 0, int(listed))
    assert await later.services.state.attempts("hq") == {}
    assert await later.everything() == before
