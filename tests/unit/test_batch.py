"""Many recordings at once, and the source's patience."""

import asyncio
from collections.abc import Iterable
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest

import worker.batch
from storage.errors import StoreUnavailable
from storage.sidecar import GapReason
from storage.state import Attempt, StateUnavailable
from tests.support.bench import NOW, Bench, make_bench
from worker.batch import archive_many, patiently
from worker.errors import GiveUp, Retry, StopSource
from worker.outcome import Fate, Report


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """Return a workbench with one source, hq."""
    return make_bench(tmp_path)


async def archive(bench: Bench, report: Report, **more: Any) -> Any:
    """Archive with the bench's parts."""
    return await archive_many(bench.services, bench.desk, bench.vendor.recordings, report, watermark=NOW, **more)


async def test_all_are_archived_and_everybody_is_told(bench: Bench) -> None:
    """Each outcome is counted and told; nothing is left unsettled."""
    for number in range(20):
        bench.vendor.add(number)
    report, told, begun = Report(), [], []

    async def starting(coming: Any) -> None:
        begun.append(coming[0].id)

    left = await archive(bench, report, listener=lambda r, o: told.append(o.fate), starting=starting)
    assert (report.archived, left) == (20, None)
    assert told == [Fate.ARCHIVED] * 20
    assert len(begun) == 20
    assert report.bytes == sum(map(len, bench.vendor.bodies.values()))


async def test_what_turns_out_to_be_held_is_counted_as_held(bench: Bench) -> None:
    """Another worker was faster: no error, no second copy."""
    bench.vendor.add(1)
    await archive(bench, Report())
    report = Report()
    await archive(bench, report)
    assert (report.archived, report.held) == (0, 1)


async def test_one_recordings_trouble_never_stops_the_others(bench: Bench) -> None:
    """Nine are archived beside one that is forbidden and one that fails; the oldest unsettled is told."""
    for number in range(11):
        bench.vendor.add(number, minutes_ago=60 + number)
    bench.vendor.script["rec-3"] = [GiveUp("403", GapReason.FORBIDDEN)]
    bench.vendor.script["rec-7"] = [Retry("reset")] * 3
    report = Report()
    left = await archive(bench, report)
    assert (report.archived, report.gaps, report.pending, report.to_retry) == (9, 1, 1, 1)
    assert left == NOW - timedelta(minutes=67)
    assert (await bench.gap(bench.vendor.recordings[3])).reason is GapReason.FORBIDDEN


async def test_when_all_fail_alike_the_source_is_to_blame(bench: Bench) -> None:
    """Ten recordings forbidden and none archived: no gaps yet, and the report says why."""
    for number in range(11):
        bench.vendor.add(number)
        bench.vendor.script[f"rec-{number}"] = [GiveUp("403 for all", GapReason.FORBIDDEN)]
    report = Report()
    await archive(bench, report)
    assert (report.gaps, report.pending) == (0, 11)
    assert "same way (forbidden) and none was archived: 403 for all" in report.errors[0]
    assert await bench.everything() == []


async def test_what_was_established_for_each_is_not_blamed_on_the_source(bench: Bench) -> None:
    """Recordings too large by their own length are gaps however many they are."""
    for number in range(12):
        bench.vendor.add(number)
        bench.vendor.script[f"rec-{number}"] = [GiveUp("big", GapReason.TOO_LARGE)]
    report = Report()
    await archive(bench, report)
    assert report.gaps == 12


async def test_a_source_whose_media_all_fail_is_left_alone(bench: Bench) -> None:
    """After twenty failures and no success the rest is not even tried, but counted: the next pass is the retry."""
    for number in range(60):
        bench.vendor.add(number)
        bench.vendor.script[f"rec-{number}"] = [Retry("500 for all")] * 3
    report = Report()
    await archive(bench, report)
    assert "20 recordings in a row failed and none was archived" in report.errors[0]
    assert (report.pending, report.to_retry) == (60, 60)
    assert len(set(bench.vendor.opened)) < 40


async def test_old_trouble_does_not_keep_new_recordings_waiting(bench: Bench) -> None:
    """What failed before is tried last, so that what is new is archived however much of the old fails again."""
    for number in range(30):
        bench.vendor.add(number, minutes_ago=200 - number)
        bench.vendor.script[f"rec-{number}"] = [Retry("500")] * 99
        attempt = Attempt(NOW, 1, NOW, "500")
        await bench.services.state.save_attempt("hq", f"rec-{number}", attempt)
    bench.vendor.add(99, minutes_ago=10)
    report = Report()
    await archive(bench, report)
    assert report.archived == 1


async def test_a_batch_that_closes_begins_nothing_more(bench: Bench) -> None:
    """What was not begun is left for the next pass, and said to be pending."""
    closing = asyncio.Event()
    closing.set()
    bench.vendor.add(1)
    report = Report()
    assert await archive(bench, report, closing=closing) == NOW - timedelta(minutes=60)
    assert (report.pending, bench.vendor.opened) == (1, [])


@pytest.mark.parametrize("error", [StopSource("wrong password"), StoreUnavailable("down")])
async def test_what_concerns_all_ends_the_batch(bench: Bench, error: Exception) -> None:
    """It is raised as it is; gaps established before are on record, others are cancelled cleanly."""
    for number in range(20):
        bench.vendor.add(number)
    bench.vendor.script["rec-0"] = [GiveUp("403", GapReason.FORBIDDEN)]
    bench.vendor.script["rec-5"] = [error]
    report = Report()
    with pytest.raises(type(error)):
        await archive(bench, report)
    assert report.archived < 19
    assert report.gaps == 1


async def test_no_more_at_once_than_allowed(tmp_path: Path) -> None:
    """The transfers of a process are bounded, whatever the number of recordings."""
    bench = make_bench(tmp_path, transfers=2)
    most = now = 0

    async def opening() -> None:
        nonlocal most, now
        now += 1
        most = max(most, now)
        await asyncio.sleep(0)
        now -= 1

    for number in range(12):
        bench.vendor.add(number)
        bench.vendor.script[f"rec-{number}"] = [opening]
    await archive(bench, Report())
    assert most == 2


async def test_a_source_without_progress_is_given_up(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A minute of silence ends the pass, and cancels what hung; signs of life are given meanwhile."""
    monkeypatch.setattr(worker.batch, "_LOOK_EVERY", 0.001)
    signs, cancelled = [], []

    async def hang() -> None:
        slot = await bench.desk.gate.enter()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(True)
            raise
        finally:
            await slot.release()

    async def sign() -> None:
        signs.append(True)
        bench.clock.advance(40)

    with pytest.raises(StopSource, match="no progress for 60 s"):
        await patiently(bench.desk.gate, "hq", hang(), sign)
    assert (len(signs), cancelled) == (2, [True])


async def test_work_that_ends_is_awaited_and_its_error_raised(bench: Bench) -> None:
    """Patience changes nothing about work that gets on."""

    async def fine() -> None:
        await asyncio.sleep(0)

    async def wrong() -> None:
        raise Retry("x")

    await patiently(bench.desk.gate, "hq", fine())
    with pytest.raises(Retry):
        await patiently(bench.desk.gate, "hq", wrong())


async def test_what_is_held_is_told_to_the_state_together(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sixty recordings cost three requests to the state for being held, not sixty; at the end it knows all of them."""
    told: list[int] = []
    state = bench.services.state
    real = state.add_held

    async def counted(source: str, day: date, rids: Iterable[str]) -> None:
        told.append(len(list(rids)))
        await real(source, day, rids)

    recordings = [bench.vendor.add(n, minutes_ago=60) for n in range(60)]
    day = recordings[0].started_at.date()
    await state.remember_held("hq", day, ())
    monkeypatch.setattr(state, "add_held", counted)
    await archive_many(bench.services, bench.desk, recordings, Report(), watermark=None)
    assert sum(told) == 60
    assert len(told) == 3
    assert await state.held("hq", day) == {f"rec-{n}" for n in range(60)}


async def test_a_state_that_fails_to_note_what_is_held_stops_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last few that cannot be told are archived all the same; the next pass finds them in the bucket."""

    async def refused(*_: object) -> None:
        raise StateUnavailable("away")

    monkeypatch.setattr(bench.services.state, "add_held", refused)
    report = Report()
    await archive_many(bench.services, bench.desk, [bench.vendor.add(1)], report, watermark=None)
    assert report.archived == 1
