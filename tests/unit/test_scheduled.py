"""Polls, chains of batches, backfills: the scheduled pass, with messages kept in a list instead of a queue."""

import asyncio
from collections import deque
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import worker.chain
import worker.handover
import worker.polling
from storage.errors import StoreUnavailable
from storage.sidecar import GapReason
from storage.state import Attempt, StateUnavailable
from tests.support.bench import NOW, Bench, make_bench
from tests.support.message_queue import Queue
from worker.chain import WAITING, Chain
from worker.errors import BadAnswer, GiveUp, Retry, StopSource
from worker.handover import _InFlight, archive_batch
from worker.model import Recording, Window
from worker.outcome import Report
from worker.polling import Polled, backfill, backfill_note, poll


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """Return a workbench with one source, hq."""
    return make_bench(tmp_path, processes=2)


@pytest.fixture
def queue(bench: Bench) -> Queue:
    """Return a queue in a list."""
    return Queue(bench)


async def held(bench: Bench) -> int:
    """Count the sidecars."""
    return sum(key.endswith(".json") and "/recordings/" in key for key in await bench.everything())


async def test_a_poll_lays_down_batches_that_archive_everything(
    bench: Bench, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two lanes are sent at first, each batch sends the next of its lane, and in the end all is held."""
    monkeypatch.setattr(worker.chain, "BATCH", 4)
    for number in range(18):
        bench.vendor.add(number, minutes_ago=100 - number)
    assert await queue.poll() is Polled.DONE
    assert len(queue.batches) == 2
    assert await queue.poll() is Polled.UNDER_WAY  # the chain lives
    await queue.work_off()
    assert await held(bench) == 18
    assert len(queue.reports) == 5
    assert queue.again == []
    assert await queue.poll() is Polled.DONE
    assert (queue.batches, bench.vendor.opened.count("rec-0")) == (deque(), 1)
    assert (await bench.services.state.noted("poll:hq"))["watermark"] == bench.clock.now().isoformat()


async def test_a_poll_that_leaves_some_asks_for_another(
    bench: Bench, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A backlog longer than one poll takes goes on when the chain is over, without waiting for the clock."""
    monkeypatch.setattr(worker.polling, "LIMIT", 5)
    monkeypatch.setattr(worker.chain, "BATCH", 2)
    for number in range(8):
        bench.vendor.add(number, minutes_ago=100 - number)
    await queue.poll()
    await queue.work_off()
    assert queue.again == [{}]
    await queue.poll()
    await queue.work_off()
    assert await held(bench) == 8
    assert queue.again == [{}]


async def test_only_one_poll_of_a_source_at_a_time(bench: Bench, queue: Queue) -> None:
    """Another scheduler's poll of the same source ends at once."""
    lease = await bench.services.state.lease("poll:hq", 15)
    assert lease is not None
    assert await queue.poll() is Polled.UNDER_WAY
    await lease.release()
    assert await queue.poll() is Polled.DONE


async def test_trouble_with_a_source_is_noted(bench: Bench, queue: Queue) -> None:
    """A poll of a source with a wrong password ends, says so to status, and gives its lease back."""
    bench.vendor.listing = [StopSource("password refused")]
    assert await queue.poll() is Polled.TROUBLE
    assert "password refused" in (await bench.services.state.noted("poll:hq"))["error"]
    assert await queue.poll() is Polled.DONE
    assert (await bench.services.state.noted("poll:hq"))["error"] == ""


async def test_trouble_with_the_bucket_is_noted(bench: Bench, queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bucket that is down ends the poll, or the chain, without an exception."""

    def down(*_: Any, **__: Any) -> Any:
        raise StoreUnavailable("bucket down")

    bench.vendor.add(1)
    with monkeypatch.context() as patch:
        patch.setattr(bench.store, "objects", down)
        patch.setattr(bench.store, "folders", down)
        assert await queue.poll() is Polled.TROUBLE
    assert (await bench.services.state.noted("poll:hq"))["error"] == "bucket down"
    await queue.poll()
    monkeypatch.setattr(bench.store, "put", down)
    report = await queue.archive(queue.batches.popleft())
    assert report is not None
    assert report.errors == ["bucket down"]
    assert not await Chain.alive(bench.services.state, "hq", "poll")


async def test_trouble_with_the_source_ends_the_chain(
    bench: Bench, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a wrong password in a batch nothing more is sent; the next poll is the retry."""
    monkeypatch.setattr(worker.chain, "BATCH", 1)
    for number in range(5):
        bench.vendor.add(number, minutes_ago=100 - number)
        bench.vendor.script[f"rec-{number}"] = [StopSource("refused")]
    await queue.poll()
    await queue.work_off()
    assert len(queue.reports) == 2  # the two lanes
    assert [name for name, (body, _) in bench.services.state._stashed.items() if name.startswith("batch:")] == []  # type: ignore[attr-defined]
    assert not await Chain.alive(bench.services.state, "hq", "poll")
    await queue.poll()
    assert len(queue.batches) == 2


async def test_a_batch_run_twice_downloads_nothing_twice(bench: Bench, queue: Queue) -> None:
    """A redelivered message finds its contents gone, or what was archived held."""
    bench.vendor.add(1)
    await queue.poll()
    batch = queue.batches.popleft()
    contents = await bench.services.state.unstash(f"batch:{batch}")
    assert contents is not None
    await queue.archive(batch)
    assert await queue.archive(batch) is None
    await bench.services.state.stash(f"batch:{batch}", contents, 60)
    report = await queue.archive(batch)
    assert report is not None
    assert report.archived == 0
    assert bench.vendor.opened == ["rec-1"]


async def test_a_batch_of_an_older_chain_is_dropped(bench: Bench, queue: Queue) -> None:
    """Once a newer chain is under way, what is left of the old one is its business."""
    bench.vendor.add(1)
    await queue.poll()
    await Chain.new("hq", "poll", 2).live(bench.services.state)
    old = queue.batches.popleft()
    assert await queue.archive(old) is None
    assert bench.vendor.opened == []
    await Chain.of("hq", old, 2).end(bench.services.state)  # nor can the old one end the new
    assert await Chain.alive(bench.services.state, "hq", "poll")


async def test_a_chain_that_waits_too_long_is_carried_out_all_the_same(bench: Bench, queue: Queue) -> None:
    """Workers are busy and polls come faster than batches: the first to come up goes on, the others find it settled."""
    bench.vendor.add(1)
    for waits in (worker.chain.WAITING + 1, worker.chain.WAITING + 1, 0):
        await queue.poll()
        bench.clock.advance(waits)
    assert len(queue.batches) == 3
    report = await queue.archive(queue.batches.popleft())
    assert report is not None
    assert report.archived == 1
    await queue.work_off()
    assert bench.vendor.opened == ["rec-1"]


async def test_a_chain_that_another_took_over_sends_nothing_more(
    bench: Bench, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that was frozen for a minute ends what it began and leaves the rest to who is at it by now."""
    monkeypatch.setattr(worker.chain, "BATCH", 1)
    for number in range(4):
        bench.vendor.add(number, minutes_ago=100 - number)
    newer = Chain.new("hq", "poll", 2)

    async def frozen() -> None:
        bench.clock.advance(worker.chain.ALIVE + 1)
        assert await newer.live(bench.services.state)

    bench.vendor.script["rec-0"] = [frozen]
    await queue.poll()
    first, second = queue.batches
    queue.batches.clear()
    report = await queue.archive(first)
    assert report is not None
    assert report.archived == 1
    assert not queue.batches
    assert await queue.archive(second) is None
    assert not await Chain.of("hq", first, 2).live(bench.services.state)


async def test_another_poll_is_possible_soon_after_a_worker_died(bench: Bench, queue: Queue) -> None:
    """A chain at work shows a sign of life every five seconds; one without is dead after three quarters of a minute."""
    bench.vendor.add(1)

    class Death(BaseException):
        """Stands for SIGKILL to the worker with all its processes."""

    async def dies() -> Any:
        raise Death

    bench.vendor.script["rec-1"] = [dies]
    await queue.poll()
    with pytest.raises(Death):
        await queue.work_off()
    assert await queue.poll() is Polled.UNDER_WAY
    bench.clock.advance(46)
    assert await queue.poll() is Polled.DONE
    await queue.work_off()
    assert await held(bench) == 1


async def test_a_batch_another_process_works_on_is_left_to_it(bench: Bench, queue: Queue) -> None:
    """Where its lease does not lapse, the message is dropped after a while."""
    bench.vendor.add(1)
    await queue.poll()
    batch = queue.batches.popleft()
    lease = await bench.services.state.lease(f"batch:{batch}", 15)
    assert lease is not None
    assert await queue.archive(batch) is None
    assert sum(bench.clock.slept) > worker.handover.BATCH_LEASE
    await lease.release()
    assert await queue.archive(batch) is not None


async def test_when_its_time_is_up_a_batch_ends_in_good_order(
    bench: Bench, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It begins nothing more; what is left is the next poll's."""
    monkeypatch.setattr(worker.handover, "BATCH_SECONDS", 0.0)
    bench.services.transfers = 1

    async def slowly() -> None:
        await asyncio.sleep(0.01)

    for number in range(3):
        bench.vendor.add(number)
        bench.vendor.script[f"rec-{number}"] = [slowly]
    await queue.poll()
    report = await queue.archive(queue.batches.popleft())
    assert report is not None
    assert report.archived < 3
    monkeypatch.undo()
    await queue.poll()
    await queue.work_off()
    assert await held(bench) == 3


async def test_a_recording_that_takes_too_long_is_a_failure(bench: Bench, queue: Queue) -> None:
    """It is cut, told, and tried again less and less often, instead of being downloaded for ever."""

    async def hang() -> Any:
        await asyncio.Event().wait()

    bench.services.recording_seconds = 0.01
    bench.vendor.add(1)
    bench.vendor.script["rec-1"] = [hang]
    await queue.poll()
    await queue.work_off()
    attempt = await bench.services.state.attempt("hq", "rec-1")
    assert attempt is not None
    assert "not archived within" in attempt.error


async def test_a_stopping_worker_lets_another_begin_at_once(bench: Bench, queue: Queue) -> None:
    """Cancelled, a batch gives its lease back and ends its chain, so the next poll goes on."""
    begun = asyncio.Event()

    async def hang() -> Any:
        begun.set()
        await asyncio.Event().wait()

    bench.vendor.add(1)
    bench.vendor.script["rec-1"] = [hang]
    await queue.poll()
    task = asyncio.create_task(queue.archive(queue.batches.popleft()))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await queue.poll()
    await queue.work_off()
    assert await held(bench) == 1


async def test_a_recording_that_kills_its_worker_is_tried_alone_and_given_up(
    bench: Bench, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Deaths are counted before they happen; others under way at the same time are archived; in the end a gap."""
    for number in range(4):
        bench.vendor.add(number, minutes_ago=100 - number)
    deaths = 0

    class Death(BaseException):
        """Stands for SIGKILL: nothing of ours runs after it."""

    async def dies() -> Any:
        nonlocal deaths
        deaths += 1
        raise Death

    bench.vendor.script["rec-2"] = [dies] * 99
    with monkeypatch.context() as patch:

        async def nothing(*_: Any) -> None:
            return None

        patch.setattr(worker.handover._InFlight, "clear", nothing)
        for _ in range(9):
            await bench.services.state.drop("chain:hq:poll")
            await queue.poll()
            if not queue.batches:
                break
            with pytest.raises(Death) if deaths < 3 else _nothing():
                await queue.work_off()
            queue.batches.clear()
    assert deaths == 3
    assert await held(bench) == 3
    assert (await bench.gap(bench.vendor.recordings[2])).reason is GapReason.CRASHED


async def test_a_batch_that_kills_before_any_recording_is_given_up(
    bench: Bench, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its message comes again after each death, but not for ever: the chain ends, and the next poll begins another."""
    bench.vendor.add(1)
    await queue.poll()
    batch = queue.batches.popleft()

    class Death(BaseException):
        """Stands for SIGKILL: nothing of ours runs after it."""

    async def dies(*_: Any) -> Any:
        raise Death

    with monkeypatch.context() as patch:
        patch.setattr(worker.handover.Index, "held", dies)
        for _ in range(3):
            with pytest.raises(Death):
                await queue.archive(batch)
        assert await queue.archive(batch) is None
    assert await bench.services.state.unstash(f"batch:{batch}") is None
    assert await queue.poll() is Polled.DONE
    await queue.work_off()
    assert await held(bench) == 1


async def test_giving_up_counts_anew_after_a_flush_and_ends(bench: Bench, queue: Queue) -> None:
    """The first try is forgotten with everything else; so long after the next one it is a gap all the same."""
    bench.change(give_up_after=timedelta(hours=3))
    recording = bench.vendor.add(1)
    bench.vendor.script["rec-1"] = [Retry("500")] * 999
    for hour in range(5):
        assert not [key for key in await bench.everything() if "/gaps/" in key], hour
        if hour == 2:
            await bench.services.state.forget_attempt("hq", "rec-1")
        await queue.poll()
        await queue.work_off()
        bench.clock.advance(3600)
    await queue.poll()
    await queue.work_off()
    gap = await bench.gap(recording)
    assert (gap.reason, gap.tries) == (GapReason.GAVE_UP, 4)
    opened = len(bench.vendor.opened)
    bench.clock.advance(7200)
    await queue.poll()
    await queue.work_off()
    assert len(bench.vendor.opened) == opened, "no pass tries it again"


class _nothing:  # noqa: N801 - stands where a context manager does
    def __enter__(self) -> None: ...
    def __exit__(self, *_: object) -> None: ...


async def test_a_recording_once_suspected_is_tried_alone_until_it_is_settled(bench: Bench, queue: Queue) -> None:
    """A death that was counted earlier keeps it out of the crowd."""
    recording = bench.vendor.add(1)
    await bench.services.state.save_attempt("hq", "rec-1", Attempt(NOW, 0, NOW, "died", 1))
    await queue.poll()
    await queue.work_off()
    assert (await bench.sidecar(recording)).recording_id == "rec-1"
    assert await bench.services.state.attempts("hq") == {}


async def test_a_backfill_goes_through_its_span_oldest_first_and_leaves_the_watermark_alone(
    bench: Bench, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It looks again after each chain until everything of the span is settled, and notes how far it is."""
    monkeypatch.setattr(worker.polling, "LIMIT", 3)
    span = Window(NOW - timedelta(days=300), NOW - timedelta(days=200))
    for number in range(7):
        bench.vendor.add(number, minutes_ago=(250 - number) * 24 * 60)
    note = backfill_note(bench.source)
    marks = []
    window = span
    while True:
        assert await backfill(bench.services, bench.source, window, queue.send) is Polled.DONE
        told = await bench.services.state.noted(note)
        marks.append(told["at"])
        if told["done"]:
            break
        await queue.work_off()
        words = queue.again.pop()
        window = Window(type(NOW).fromisoformat(words["from"]), type(NOW).fromisoformat(words["to"]))
    assert await held(bench) == 7
    assert marks == sorted(marks)
    assert (told["from"], told["at"], told["to"]) == (
        span.start.isoformat(),
        span.end.isoformat(),
        span.end.isoformat(),
    )
    assert await bench.services.state.watermark("hq") is None
    assert bench.vendor.opened == [f"rec-{n}" for n in range(7)]


async def test_a_poll_takes_up_a_backfill_that_stands_still(bench: Bench, queue: Queue) -> None:
    """One that was interrupted, or has retries due, is asked for again; one that is done is not."""
    note = backfill_note(bench.source)
    await bench.services.state.note(note, {"from": "a", "at": "b", "to": "c", "done": ""})
    await queue.poll()
    assert queue.backfills == [("b", "c")]
    await bench.services.state.note(note, {"from": "a", "at": "c", "to": "c", "done": "yes"})
    await queue.poll()
    assert queue.backfills == [("b", "c")]


async def test_pending_recordings_keep_a_backfill_open(bench: Bench, queue: Queue) -> None:
    """It is done only when everything of its span is held or a gap."""
    bench.vendor.add(1, minutes_ago=60)
    bench.vendor.script["rec-1"] = [Retry("reset")] * 3
    span = Window(NOW - timedelta(days=1), NOW)
    await backfill(bench.services, bench.source, span, queue.send)
    await queue.work_off()
    bench.vendor.script["rec-1"] = [GiveUp("403", GapReason.FORBIDDEN)]
    await backfill(bench.services, bench.source, span, queue.send)
    assert not (await bench.services.state.noted(backfill_note(bench.source)))["done"]
    await queue.work_off()
    await backfill(bench.services, bench.source, span, queue.send)
    assert (await bench.services.state.noted(backfill_note(bench.source)))["done"]


async def test_rows_that_cannot_be_read_are_put_on_record(bench: Bench, queue: Queue) -> None:
    """With an id they become gaps, without one they are errors of the poll."""
    from worker.model import Unreadable

    bench.vendor.unreadable = (Unreadable("x", "no start", {}), Unreadable(None, "no id", {}))
    await queue.poll()
    assert await bench.everything() == ["v1/gaps/source=hq/date=1970-01-01/x.json"]
    assert "no id" in (await bench.services.state.noted("poll:hq"))["error"]


async def test_a_listing_cut_short_hands_over_what_it_had_and_says_so(bench: Bench, queue: Queue) -> None:
    """The batches are sent, the watermark stays, and the trouble is noted."""
    bench.vendor.add(1)
    bench.vendor.pages = [BadAnswer("page two is no JSON")]
    assert await queue.poll() is Polled.TROUBLE
    await queue.work_off()
    assert await held(bench) == 1
    note = await bench.services.state.noted("poll:hq")
    assert "page two" in note["error"]
    bench.vendor.pages = [BadAnswer("page two is no JSON")]
    span = Window(NOW - timedelta(days=1), NOW)
    assert await backfill(bench.services, bench.source, span, queue.send) is Polled.TROUBLE


async def test_a_bug_in_a_connector_is_noted_for_status(bench: Bench, queue: Queue) -> None:
    """The poll ends with its type named, not with a task that died in silence."""
    bench.vendor.listing = [KeyError("x")]
    assert await queue.poll() is Polled.TROUBLE
    assert "unexpected KeyError" in (await bench.services.state.noted("poll:hq"))["error"]


async def test_state_that_is_gone_is_raised(bench: Bench, queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the shared state a poll cannot be single-flight: the task fails, and the next one tries."""

    async def gone(*_: Any) -> Any:
        raise StateUnavailable("gone")

    monkeypatch.setattr(bench.services.state, "attempts", gone)
    with pytest.raises(StateUnavailable):
        await queue.poll()


async def test_a_backfill_of_another_span_is_not_written_over(bench: Bench, queue: Queue) -> None:
    """A task that was asked for before the note changed leaves the newer request alone."""
    note = {"from": "a", "at": "a", "to": NOW.isoformat(), "done": ""}
    await bench.services.state.note(backfill_note(bench.source), note)
    span = Window(NOW - timedelta(days=9), NOW - timedelta(days=8))
    await backfill(bench.services, bench.source, span, queue.send)
    assert await bench.services.state.noted(backfill_note(bench.source)) == note


async def test_a_chain_of_which_a_batch_was_dropped_is_dropped_as_a_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a lane cut off it would lie in the state for hours, and pass for alive when its other lanes have ended."""
    monkeypatch.setattr(worker.chain, "BATCH", 10)
    bench = make_bench(tmp_path, processes=2)
    state, sent = bench.services.state, list[str]()
    for number in range(60):
        bench.vendor.add(number, minutes_ago=600 - number)

    def send(_: str, batch: str) -> None:
        sent.append(batch)

    async def polled() -> list[str]:
        sent.clear()
        assert await poll(bench.services, bench.source, send, lambda *_: None) is Polled.DONE
        return list(sent)

    async def worked_off(batch: str) -> Report | None:
        return await archive_batch(bench.services, bench.source, batch, send, lambda *_: None)

    older = await polled()
    bench.clock.advance(WAITING + 1)
    newer = await polled()
    first = Chain.of("hq", older[0], 2)
    assert await first.live(state)
    assert await worked_off(newer[0]) is None
    await first.wait(state)
    assert await worked_off(newer[1]) is None
    queue = older
    while queue:
        sent.clear()
        await worked_off(queue.pop(0))
        queue += sent
    assert len([key for key in await bench.everything() if key.endswith(".json")]) == 60
    assert not await Chain.alive(state, "hq", "poll")
    assert [await state.unstash(f"batch:{newer[0].partition('.')[0]}.{n}") for n in range(6)] == [None] * 6


async def test_gaps_alone_do_not_ask_for_another_look(
    bench: Bench, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Records that change with each listing would be tried without end: they wait for the clock."""
    monkeypatch.setattr(worker.polling, "LIMIT", 5)
    for number in range(8):
        refusing = bench.vendor.add(number, minutes_ago=100 - number)
        bench.vendor.script[refusing.id] = [GiveUp("no", GapReason.FORBIDDEN)] * 9
    await queue.poll()
    await queue.work_off()
    assert queue.again == []


async def test_what_begins_at_once_is_written_down_at_once(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight recordings that begin together cost two requests to the state, and none goes on before its name is there;
    a request that fails has been made for nobody.
    """
    written: list[set[str]] = []
    real = bench.services.state.note

    async def noted(name: str, fields: dict[str, str]) -> None:
        written.append(set(fields))
        if len(written) == 1:
            await asyncio.sleep(0)
            raise StateUnavailable("away")
        await real(name, fields)

    monkeypatch.setattr(bench.services.state, "note", noted)
    watch = _InFlight(bench.services.state, "inflight")
    recordings = [bench.vendor.add(n) for n in range(8)]
    failed, *others = await asyncio.gather(
        *(watch.begins([recording]) for recording in recordings), return_exceptions=True
    )
    assert isinstance(failed, StateUnavailable)
    assert others == [None] * 7
    assert len(written) == 2
    assert await watch.of_the_dead() == {f"rec-{n}" for n in range(8)}


async def test_what_comes_next_is_written_down_with_what_begins(
    bench: Bench, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sixty recordings take far fewer notes than sixty, and each is written down before it begins."""
    for number in range(60):
        bench.vendor.add(number)
    noted: list[set[str]] = []
    real_note, real_open = bench.services.state.note, bench.vendor.open_media

    async def note(name: str, fields: dict[str, str]) -> None:
        await real_note(name, fields)
        if name.startswith("inflight:"):
            noted.append(set(fields))

    async def opens(recording: Recording) -> Any:
        assert recording.id in noted[-1]
        return await real_open(recording)

    monkeypatch.setattr(bench.services.state, "note", note)
    monkeypatch.setattr(bench.vendor, "open_media", opens)
    await queue.poll()
    await queue.work_off()
    assert await held(bench) == 60
    assert len(noted) < 20
    assert noted[-1] == set(), "and forgotten at the end"
