"""What is listed, settled and due."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from storage.keys import NO_DATE
from storage.sidecar import GapReason
from storage.state import Attempt
from tests.support.bench import NOW, Bench, make_bench
from worker.discovery import Found, discover
from worker.gaps import write_gap, write_unreadable
from worker.index import Index, archived_watermark, gaps_on_record
from worker.model import Readiness, Unreadable, Window
from worker.outcome import Report
from worker.pipeline import archive_one
from worker.span import current_watermark, current_window, window_of

DAY = Window(NOW - timedelta(days=1), NOW)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """Return a workbench with one source, hq."""
    return make_bench(tmp_path)


async def look(bench: Bench, window: Window = DAY, limit: int = 100) -> tuple[Found, Report]:
    """Discover; return what was found and what was counted."""
    report = Report()
    return await discover(bench.services, bench.desk, window, report, limit), report


async def test_the_oldest_due_come_first(bench: Bench) -> None:
    """Everything finished and not settled is due, in the order of its start; the watermark stops at the first."""
    for number, minutes in enumerate((30, 90, 60)):
        bench.vendor.add(number, minutes_ago=minutes)
    found, report = await look(bench)
    assert [r.id for r in found.to_archive] == ["rec-1", "rec-2", "rec-0"]
    assert report.listed == 3
    assert found.watermark == NOW - timedelta(minutes=90)
    assert found.resume_at is None


async def test_what_started_outside_the_window_plays_no_part(bench: Bench) -> None:
    """The window is half open; rows beside it are not even counted."""
    bench.vendor.add(1, minutes_ago=0)
    bench.vendor.add(2, minutes_ago=24 * 60)
    bench.vendor.add(3, minutes_ago=24 * 60 + 1)
    found, report = await look(bench)
    assert [r.id for r in found.to_archive] == ["rec-2"]
    assert report.listed == 1


async def test_what_is_held_is_left_out(bench: Bench) -> None:
    """A recording with a sidecar is counted as held, also when its start moved over midnight."""
    recording = bench.vendor.add(1, minutes_ago=60)
    moved = bench.vendor.add(2, minutes_ago=13 * 60)
    for each in (recording, moved):
        await archive_one(bench.services, bench.desk, each, NOW)
    bench.vendor.recordings.remove(moved)
    bench.vendor.add(2, minutes_ago=11 * 60)  # the same id, its zone corrected
    found, report = await look(bench)
    assert (found.to_archive, report.held) == ([], 2)
    assert found.watermark == NOW


async def test_held_days_are_read_once_and_remembered(bench: Bench) -> None:
    """A day that the state knows is not listed again."""
    await bench.services.state.remember_held("hq", NOW.date(), ["rec-1"])
    bench.vendor.add(1)
    _, report = await look(bench)
    assert report.held == 1


@pytest.mark.parametrize(
    ("minutes", "readiness"), [(1, Readiness.READY), (60, Readiness.NOT_YET)], ids=["unsettled", "unfinished"]
)
async def test_what_is_not_ready_waits_and_holds_the_watermark(
    bench: Bench, minutes: float, readiness: Readiness
) -> None:
    """A call that ended less than settle ago, or is still being saved, is pending and no failure."""
    bench.vendor.add(1, minutes_ago=minutes, readiness=readiness)
    found, report = await look(bench)
    assert (found.to_archive, report.pending, report.to_retry) == ([], 1, 0)
    assert found.watermark == NOW - timedelta(minutes=minutes)


async def test_settle_counts_from_the_start_where_the_end_is_unknown(bench: Bench) -> None:
    """A call whose end is unknown counts as ended when it began."""
    recording = bench.vendor.add(1, minutes_ago=2.1)
    endless = recording.call.model_copy(update={"ended_at": None})
    bench.vendor.recordings = [type(recording)(id="rec-1", call=endless, record=recording.record)]
    assert len((await look(bench))[0].to_archive) == 1


async def test_unfinished_for_too_long_is_looked_at(bench: Bench) -> None:
    """After give_up_after a recording that is still being saved is handed on, to become a gap in the end."""
    bench.change(give_up_after=timedelta(minutes=30))
    bench.vendor.add(1, minutes_ago=60, readiness=Readiness.NOT_YET)
    bench.vendor.add(2, minutes_ago=1, readiness=Readiness.NEVER)
    assert len((await look(bench))[0].to_archive) == 2


async def test_a_retry_is_not_due_before_its_time(bench: Bench) -> None:
    """Until then it is pending and counts as something to be tried again."""
    bench.vendor.add(1)
    attempt = Attempt(NOW, 2, NOW + timedelta(minutes=2), "reset")
    await bench.services.state.save_attempt("hq", "rec-1", attempt)
    found, report = await look(bench)
    assert (found.to_archive, report.pending, report.to_retry) == ([], 1, 1)
    bench.clock.advance(121)
    assert len((await look(bench))[0].to_archive) == 1


async def test_a_gap_is_settled_until_the_vendors_record_changes(bench: Bench) -> None:
    """A gap is counted as on record; a changed record makes it due again."""
    recording = bench.vendor.add(1)
    await write_gap(bench.services, bench.desk, recording, GapReason.FORBIDDEN, "403")
    for _ in range(2):  # the second look knows the gap from the state
        found, report = await look(bench)
        assert (found.to_archive, report.gaps_on_record, report.pending) == ([], 1, 0)
        assert found.watermark == NOW
    recording.record["state"] = "complete"
    assert len((await look(bench))[0].to_archive) == 1
    assert await gaps_on_record(bench.services, bench.source) == 1


async def test_unreadable_rows_are_news_once(bench: Bench) -> None:
    """A row with an id becomes a gap under 1970-01-01 and is not told again; one without an id is told each time."""
    named, nameless = Unreadable("x/1", "no start", {"a": 1}), Unreadable(None, "no id", {})
    bench.vendor.unreadable = (named, named, nameless)
    found, _ = await look(bench)
    assert found.unreadable == [named, nameless]
    await write_unreadable(bench.services, bench.desk, named)
    assert await bench.everything() == ["v1/gaps/source=hq/date=1970-01-01/x~2F1.json"]
    found, report = await look(bench)
    assert found.unreadable == [nameless]
    assert report.gaps_on_record == 1
    assert await Index(bench.services, bench.source).gap("x~2F1", NO_DATE) is not None


async def test_a_backlog_is_cut_at_the_oldest(bench: Bench) -> None:
    """With more due than allowed, the oldest are taken, counts stop at the cut, and the next look goes on there."""
    for number in range(10):
        bench.vendor.add(number, minutes_ago=100 - number)
    found, report = await look(bench, limit=4)
    assert [r.id for r in found.to_archive] == ["rec-0", "rec-1", "rec-2"]
    assert found.resume_at == NOW - timedelta(minutes=97)
    assert report.listed == 3
    found, report = await look(bench, Window(found.resume_at, NOW), limit=10)
    assert len(found.to_archive) == report.listed == 7


async def test_many_that_started_at_the_same_instant_are_taken_in_turns(bench: Bench) -> None:
    """A cut cannot divide an instant; the next look begins at it."""
    for number in range(6):
        bench.vendor.add(number, minutes_ago=50)
    found, _ = await look(bench, limit=4)
    assert len(found.to_archive) == 4
    assert found.resume_at == found.watermark == NOW - timedelta(minutes=50)


async def test_a_long_window_is_listed_in_pieces_until_enough_is_found(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A vendor that lists by time is asked piece by piece, oldest first, and no further than needed."""
    info = type(bench.vendor).info
    monkeypatch.setattr(type(bench.vendor), "info", type(info)("fake", "Fake", info.options, False, timedelta(hours=6)))
    for number in range(4):
        bench.vendor.add(number, minutes_ago=23 * 60 + number)
    found, _ = await look(bench, limit=4)
    assert bench.vendor.windows == [Window(DAY.start, DAY.start + timedelta(hours=6))]
    assert found.resume_at == DAY.start + timedelta(hours=6)
    assert len(found.to_archive) == 4


async def test_an_unreadable_row_on_two_pieces_is_news_once(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neighbouring pieces overlap where the vendor filters by local time; the row is told once."""
    info = type(bench.vendor).info
    monkeypatch.setattr(
        type(bench.vendor), "info", type(info)("fake", "Fake", info.options, False, timedelta(hours=12))
    )
    bench.vendor.unreadable = (Unreadable("x", "no start", {}),)
    found, _ = await look(bench)
    assert len(found.unreadable) == 1


async def test_the_watermark_is_rebuilt_from_the_newest_sidecars(bench: Bench) -> None:
    """Each sidecar carries the watermark of its moment; the newest found is used, days without one are passed."""
    assert await archived_watermark(bench.services, bench.source) is None
    mark = datetime(2026, 3, 4, 9, tzinfo=UTC)
    await archive_one(bench.services, bench.desk, bench.vendor.add(1, minutes_ago=24 * 60), mark)
    await archive_one(bench.services, bench.desk, bench.vendor.add(2, minutes_ago=60), None)
    assert await archived_watermark(bench.services, bench.source) == mark
    assert await current_watermark(bench.services, bench.source) == mark


@pytest.mark.parametrize("days_ago", [3, 100, 1000])
async def test_the_watermark_is_looked_for_at_the_end_of_the_archive(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, days_ago: int
) -> None:
    """A source that has been silent for long has its watermark found; one that has not is not listed from its start."""
    mark, asked = NOW - timedelta(days=days_ago), []
    real = bench.store.folders

    async def noted(prefix: str, *, start_after: str = "") -> list[str]:
        asked.append(start_after)
        return await real(prefix, start_after=start_after)

    monkeypatch.setattr(bench.store, "folders", noted)
    await archive_one(bench.services, bench.desk, bench.vendor.add(1, minutes_ago=days_ago * 24 * 60), mark)
    assert await archived_watermark(bench.services, bench.source) == mark
    assert ("" in asked) == (days_ago == 1000)


async def test_no_more_than_forty_days_are_looked_at_for_a_watermark(bench: Bench) -> None:
    """An archive that carries none, such as one that was filled by hand, costs a bounded look."""
    for ago in range(50):
        await archive_one(
            bench.services,
            bench.desk,
            bench.vendor.add(ago, minutes_ago=ago * 24 * 60),
            NOW - timedelta(days=ago) if ago > 45 else None,
        )
    assert await archived_watermark(bench.services, bench.source) is None


def test_the_window_of_a_pass(bench: Bench) -> None:
    """First from start_from or lookback ago; then lookback behind the watermark, never before start_from."""
    source = bench.source
    assert window_of(source, None, NOW) == Window(NOW - timedelta(hours=48), NOW)
    mark = NOW - timedelta(hours=1)
    assert window_of(source, mark, NOW) == Window(mark - timedelta(hours=48), NOW)
    since = source.model_copy(update={"start_from": NOW - timedelta(hours=3)})
    assert window_of(since, None, NOW).start == NOW - timedelta(hours=3)
    assert window_of(since, mark, NOW).start == NOW - timedelta(hours=3)
    future = source.model_copy(update={"start_from": NOW + timedelta(hours=3)})
    assert window_of(future, None, NOW) == Window(NOW, NOW)


async def test_retries_of_old_spans_do_not_widen_every_pass(bench: Bench) -> None:
    """What failed in a span that was asked for by hand is left to whoever asked; what is due by itself is looked at."""
    old, due = bench.vendor.add(1, minutes_ago=90 * 24 * 60), bench.vendor.add(2, minutes_ago=47 * 60)
    for each in (old, due):
        attempt = Attempt(NOW, 1, NOW, "500", recording=each.to_json())
        await bench.services.state.save_attempt("hq", each.id, attempt)
    await bench.services.state.save_attempt("hq", "nameless", Attempt(NOW, 1, NOW, "of another version"))
    bench.change(lookback=timedelta(hours=47))
    bench.clock.advance(3600)
    assert (await current_window(bench.services, bench.source)).start == due.started_at


async def test_a_gap_removed_from_the_bucket_is_forgotten(bench: Bench) -> None:
    """The bucket decides what is on record, not what the state remembers of it."""
    recording = bench.vendor.add(1)
    await write_gap(bench.services, bench.desk, recording, GapReason.EMPTY, "empty")
    await look(bench)
    bench.store.versions_of.clear()
    assert len((await look(bench))[0].to_archive) == 1
    assert date(2026, 3, 5) == recording.started_at.date()
