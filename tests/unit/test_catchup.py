"""A long backlog, caught up by scheduled polls and by a run: oldest first, listed a few times, nothing skipped."""

import tracemalloc
from collections import deque
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import worker.chain
import worker.passes
import worker.polling
from storage.keys import utc_date
from storage.sidecar import GapReason
from tests.support.backlog import Past
from tests.support.bench import NOW, Bench, make_bench
from tests.unit.test_scheduled import Queue
from worker.catchup import CatchUp
from worker.discovery import FAR, discover
from worker.errors import BadAnswer, Retry, StopSource
from worker.handover import archive_batch
from worker.index import archived_watermark
from worker.model import Page, Window
from worker.outcome import Report
from worker.passes import run_source
from worker.polling import Polled, backfill, backfill_note, poll

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
SHAPES = {
    "evenly over a hundred days": [NOW - 101 * DAY + n * DAY / 20 for n in range(2000)],
    "within one day": [NOW - 20 * DAY + n * DAY / 2000 for n in range(2000)],
    "in bursts with weeks between": [NOW - (60 - 20 * (n // 667)) * DAY + n % 667 * MINUTE / 2 for n in range(2000)],
    "within the last day": [NOW - 26 * HOUR + n * DAY / 2000 for n in range(2000)],
}


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hand over a hundred recordings at a time, in batches of forty: what holds for 2,000 holds for 20,000 then."""
    monkeypatch.setattr(worker.polling, "LIMIT", 100)
    monkeypatch.setattr(worker.passes, "LIMIT", 100)
    monkeypatch.setattr(worker.chain, "BATCH", 40)


def behind(folder: Path, starts: list[object]) -> tuple[Bench, Past]:
    """Return a bench whose phone system has that past, and has never been polled."""
    bench, past = make_bench(folder, processes=1), Past(starts)  # type: ignore[arg-type]
    bench.desk = type(bench.desk)(bench.source, bench.desk.gate, bench.desk.rest, past)  # type: ignore[arg-type]
    bench.change(start_from=starts[0], max_connections=1)
    return bench, past


async def caught_up(bench: Bench, seconds: float = 60.0) -> Queue:
    """Poll and archive until no more looks are asked for; each chain takes so long."""
    queue = Queue(bench)
    queue.again.append({})
    while queue.again:
        queue.again.pop()
        assert await queue.poll() is Polled.DONE
        await queue.work_off()
        bench.clock.advance(seconds)
    return queue


async def held(bench: Bench) -> int:
    """Count the sidecars."""
    return sum(key.endswith(".json") and "/recordings/" in key for key in await bench.everything())


async def watermark(bench: Bench) -> datetime:
    """Return what the last poll noted."""
    return datetime.fromisoformat((await bench.services.state.noted("poll:hq"))["watermark"])


@pytest.mark.parametrize("shape", SHAPES)
async def test_a_backlog_is_caught_up_oldest_first_with_few_listings(tmp_path: Path, shape: str) -> None:
    """Every recording once, in the order of their starts; not five rows are listed for each that is archived."""
    bench, past = behind(tmp_path, list(SHAPES[shape]))
    await caught_up(bench)
    assert await held(bench) == 2000
    assert past.opened == list(range(2000))
    assert past.rows < 5 * 2000, past.rows
    assert past.requests < 600, past.requests
    await caught_up(bench)
    assert await watermark(bench) > NOW, "all is seen to be settled, up to the time of the look"


@pytest.mark.parametrize("shape", SHAPES)
async def test_a_run_catches_up_the_same_way(tmp_path: Path, shape: str) -> None:
    """One pass in one process, with as few listings."""
    bench, past = behind(tmp_path, list(SHAPES[shape]))
    report = await run_source(bench.services, bench.source)
    assert (report.listed, report.archived) == (2000, 2000)
    assert past.opened == list(range(2000))
    assert past.rows < 5 * 2000, past.rows


@pytest.mark.parametrize("shape", SHAPES)
async def test_a_backfill_catches_up_the_same_way(tmp_path: Path, shape: str) -> None:
    """It is done when everything of its span is settled, and says on the way how far it is."""
    bench, past = behind(tmp_path, list(SHAPES[shape]))
    queue, span, marks = Queue(bench), Window(past.starts[0], NOW), []
    while True:
        await backfill(bench.services, bench.source, span, queue.send)
        told = await bench.services.state.noted(backfill_note(bench.source))
        marks.append(told["at"])
        if told["done"]:
            break
        await queue.work_off()
        words = queue.again.pop()
        span = Window(datetime.fromisoformat(words["from"]), datetime.fromisoformat(words["to"]))
    assert past.opened == list(range(2000))
    assert past.rows < 5 * 2000, past.rows
    assert marks == sorted(marks)


async def test_one_that_fails_on_the_way_holds_the_watermark_and_is_tried_again(tmp_path: Path) -> None:
    """The rest is caught up without listing everything since it each time; then it is looked at again."""
    bench, past = behind(tmp_path, list(SHAPES["within one day"]))
    past.fails = {5: Retry("500"), 700: Retry("500")}
    await caught_up(bench)
    assert await held(bench) == 1998
    assert past.rows < 5 * 2000, past.rows
    assert await watermark(bench) == past.starts[5]
    mark = await archived_watermark(bench.services, bench.source)
    assert mark is not None
    assert mark <= past.starts[5]
    past.fails.clear()
    bench.clock.advance(3600)
    await caught_up(bench)
    assert await held(bench) == 2000
    await caught_up(bench)
    assert await watermark(bench) == bench.clock.now() - MINUTE


async def test_what_is_left_behind_by_a_chain_is_found_by_the_next_look(tmp_path: Path) -> None:
    """A batch whose contents are lost, or that dies, leaves recordings without a trace: they are listed again."""
    bench, _ = behind(tmp_path, list(SHAPES["within one day"]))
    queue = Queue(bench)
    for lost in (0, 1, 2):
        await queue.poll()
        batches = list(queue.batches)
        queue.batches.clear()
        chain = batches[0].partition(".")[0]
        await bench.services.state.drop(f"batch:{chain}.{lost}")
        await queue.archive(batches[0])
        await queue.work_off()
        await bench.services.state.drop("chain:hq:poll")
    await caught_up(bench)
    assert await held(bench) == 2000


async def test_late_arrivals_are_found_when_the_lap_is_over(tmp_path: Path) -> None:
    """What turns up within `lookback` behind where the looks are by now is found after an hour, or at the end."""
    starts = list(SHAPES["within the last day"])
    bench, past = behind(tmp_path, starts)
    past.hidden = {10, 1990}
    queue = Queue(bench)
    for _ in range(4):
        await queue.poll()
        await queue.work_off()
    reached = len(past.opened)
    past.hidden = {20}
    await queue.poll()
    await queue.work_off()
    assert 10 not in past.opened, "the lap goes on where it was"
    bench.clock.advance(3600)
    await queue.poll()
    await queue.work_off()
    assert past.opened[reached:].index(10) > 50, "an hour later a look went back"
    await caught_up(bench)
    past.hidden.clear()
    await caught_up(bench)
    assert await held(bench) == 2000


async def test_the_look_after_a_lap_goes_back_to_before_it_began(tmp_path: Path) -> None:
    """`lookback` counts from then, however long the lap took; never before `start_from`, and not where a span ends."""
    source = make_bench(tmp_path).source
    left, window = CatchUp(NOW - 9 * DAY, NOW - HOUR), Window(NOW - 48 * HOUR, NOW)
    assert left.all_the_way(window, source) == Window(NOW - 49 * HOUR, NOW)
    since = source.model_copy(update={"start_from": NOW - 48.5 * HOUR})
    assert left.all_the_way(window, since) == Window(NOW - 48.5 * HOUR, NOW)
    assert CatchUp(NOW - 9 * DAY, NOW - HOUR, until=NOW).all_the_way(window, source) == window


async def test_a_lap_survives_trouble_and_a_flush(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A listing that breaks in the middle ends the lap; a state that forgets costs a listing."""
    bench, past = behind(tmp_path, list(SHAPES["within one day"]))
    queue, real = Queue(bench), past.list_page
    await queue.poll()
    await queue.work_off()

    async def broken(window: Window, cursor: str | None) -> Page:
        if cursor:
            raise BadAnswer("page two is no JSON")
        return await real(window, cursor)

    monkeypatch.setattr(past, "list_page", broken)
    for _ in range(2):
        assert await queue.poll() is Polled.TROUBLE
        await queue.work_off()
    left = await CatchUp.of(bench.services.state, bench.source, None)
    assert left is not None
    assert (left.start, left.begun_at, left.unsettled) == (None, NOW, FAR)
    monkeypatch.setattr(past, "list_page", real)
    await bench.services.state.drop("catchup:hq:poll")
    await caught_up(bench)
    assert await held(bench) == 2000


async def test_trouble_in_the_first_look_leaves_nothing(tmp_path: Path) -> None:
    """There is no lap yet, and the next look is like the first."""
    bench, past = behind(tmp_path, list(SHAPES["within one day"]))
    bench.vendor.listing = []

    async def refused(*_: object) -> Page:
        raise StopSource("password refused")

    past.list_page = refused  # type: ignore[method-assign]
    assert await Queue(bench).poll() is Polled.TROUBLE
    assert await CatchUp.of(bench.services.state, bench.source, None) is None


async def test_a_backfill_asked_for_anew_begins_at_its_beginning(tmp_path: Path) -> None:
    """What an earlier one of the same end left plays no part when the new one begins earlier."""
    bench, past = behind(tmp_path, list(SHAPES["evenly over a hundred days"]))
    queue = Queue(bench)
    await backfill(bench.services, bench.source, Window(past.starts[1000], NOW), queue.send)
    queue.batches.clear()
    await bench.services.state.drop("chain:hq:backfill")
    await bench.services.state.note(backfill_note(bench.source), {})
    await backfill(bench.services, bench.source, Window(past.starts[500], NOW), queue.send)
    await queue.work_off()
    assert past.opened[0] == 500
    assert await CatchUp.of(bench.services.state, bench.source, NOW + DAY) is None, "another end is another span"


async def test_where_no_span_can_be_asked_for_each_look_takes_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everything is listed at each look, so there are a fifth as many looks."""
    monkeypatch.setattr(Past, "info", Past.blind)
    bench, past = behind(tmp_path, list(SHAPES["within one day"]))
    await caught_up(bench)
    assert past.opened == list(range(2000))
    assert past.rows == 2000 * 5, "499 at a time: what started at the cut is the next look's"


async def test_another_source_keeps_its_pace(tmp_path: Path) -> None:
    """One worker, one queue: before what another source has just recorded stands one batch of the backlog, not all."""
    bench, past = behind(tmp_path, list(SHAPES["within one day"]))
    desk = make_bench(tmp_path / "branch").desk
    branch = desk.source.model_copy(update={"name": "branch"})
    sources = {"hq": bench.source, "branch": branch}
    bench.services.settings = bench.services.settings.model_copy(update={"sources": tuple(sources.values())})
    bench.services._desks["branch"] = type(desk)(branch, desk.gate, desk.rest, desk.vendor)
    calls: Any = desk.vendor
    queue: deque[tuple[str, str]] = deque([("hq", "")])
    done, asked_at, waited = 0, {}, {}
    while queue:
        if done % 3 == 0 and queue[0][0] == "hq":
            name = calls.add(done, minutes_ago=30).id
            asked_at[name] = done
            queue.append(("branch", ""))
        source, batch = queue.popleft()
        done += 1
        if batch:
            send, again = (lambda *words: queue.append(words)), (lambda name, _: queue.append((name, "")))
            await archive_batch(bench.services, sources[source], batch, send, again)
        else:
            await poll(bench.services, sources[source], lambda *words: queue.append(words), lambda *_: None)
        waited |= {name: done - asked_at[name] for name in calls.opened if name not in waited}
    assert past.opened == list(range(2000))
    assert len(waited) > 10
    assert max(waited.values()) <= 6, waited


async def test_memory_does_not_grow_with_the_backlog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A look at ten times as many recordings, even without any filter, needs a few bytes more for each row."""
    monkeypatch.setattr(Past, "info", Past.blind)
    peaks = []
    for count in (2_000, 20_000):
        bench, past = behind(tmp_path / str(count), [NOW - 9 * DAY + n * MINUTE / 2 for n in range(count)])
        for day in range(11):
            await bench.services.state.remember_held("hq", utc_date(NOW - day * DAY), [])
        tracemalloc.start()
        await discover(bench.services, bench.desk, Window(past.starts[0], NOW), Report(), 100)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] - peaks[0] < 18_000 * 200, peaks


async def test_a_recording_on_the_way_is_given_up_in_time(tmp_path: Path) -> None:
    """`give_up_after` counts while a backlog is caught up, too."""
    bench, past = behind(tmp_path, list(SHAPES["within one day"]))
    bench.change(give_up_after=timedelta(hours=2))
    past.fails = {5: Retry("500")}
    for _ in range(4):
        await caught_up(bench, seconds=400)
    assert (await bench.gap(past.recording(5))).reason is GapReason.GAVE_UP
    assert await held(bench) == 1999


@pytest.mark.parametrize(
    "left",
    [
        "{",
        "[]",
        "{}",
        '{"x": 1}',
        '{"first": 0.0, "since": null, "begun_at": null}',
        '{"first": "no", "since": "2026-03-01T00:00:00+00:00", "begun_at": "2026-03-01T00:00:00+00:00"}',
        '{"first": 0.0, "since": "2026-03-01T00:00:00", "begun_at": "2026-03-01T00:00:00"}',
    ],
)
async def test_what_another_version_left_is_as_good_as_nothing(tmp_path: Path, left: str) -> None:
    """Else the source would not be polled until the state forgets it, six hours later."""
    bench = make_bench(tmp_path)
    recording = bench.vendor.add(1)
    await bench.services.state.stash("catchup:hq:poll", left, 3600)
    queue = Queue(bench)
    assert await queue.poll() is Polled.DONE
    await queue.work_off()
    assert (await bench.sidecar(recording)).recording_id == recording.id
