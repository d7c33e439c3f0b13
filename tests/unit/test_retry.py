"""Gaps tried again because somebody asked."""

import hashlib
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from storage.sidecar import GapReason
from storage.state import Attempt
from tests.support.bench import NOW, Bench, FakeStream, make_bench
from tests.unit.test_passes import Looker
from worker import retry
from worker.errors import BadAnswer, GiveUp, Retry, StopSource
from worker.gaps import read_gap, write_gap, write_unreadable
from worker.index import gaps_on_record
from worker.model import ClaimedHash, Readiness, Unreadable
from worker.passes import run_source
from worker.pipeline import MAX_CRASHES
from worker.retry import retry_gaps

HOUR = 60


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """Return a workbench with one source, hq."""
    return make_bench(tmp_path)


def filters_by_time(bench: Bench, monkeypatch: pytest.MonkeyPatch, max_window: timedelta | None) -> None:
    """Have the phone system take so long a span at most, or none at all."""
    info = type(bench.vendor).info
    monkeypatch.setattr(type(bench.vendor), "info", type(info)("fake", "Fake", info.options, False, max_window))


async def with_gaps(bench: Bench, count: int, reason: GapReason = GapReason.FORBIDDEN, apart: float = 7 * HOUR) -> None:
    """Put so many listed recordings on record as gaps, the oldest first."""
    for number in range(count):
        recording = bench.vendor.add(number, minutes_ago=HOUR + apart * (count - number))
        await write_gap(bench.services, bench.desk, recording, reason, "403")


async def test_a_gap_that_succeeds_is_archived_and_its_record_stays(bench: Bench) -> None:
    """The recording is held from then on, no pass tries it again, and the gap is history: counted no more."""
    await with_gaps(bench, 2)
    before = await bench.gap(bench.vendor.recordings[0])
    assert (await run_source(bench.services, bench.source)).archived == 0, "passes leave gaps alone"
    looker = Looker()
    report = await retry_gaps(bench.services, bench.source, "rec-0", looker)
    assert (report.on_record, report.archived, report.gaps, report.not_tried, report.errors) == (1, 1, 0, 0, [])
    assert (looker.due, looker.done) == (1, ["rec-0"])
    assert (await bench.sidecar(bench.vendor.recordings[0])).recording_id == "rec-0"
    assert await bench.gap(bench.vendor.recordings[0]) == before
    assert await gaps_on_record(bench.services, bench.source) == 1
    again = await retry_gaps(bench.services, bench.source, "rec-0")
    assert (again.on_record, again.held, again.archived) == (0, 1, 0)
    told = await run_source(bench.services, bench.source)
    assert (told.held, told.gaps_on_record, told.archived) == (1, 1, 0)
    assert bench.vendor.opened == ["rec-0"]


async def test_all_gaps_are_tried_in_bounded_steps(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest day first, no more records in memory than a chunk; objects that are no gap records are told."""
    monkeypatch.setattr(retry, "CHUNK", 3)
    monkeypatch.setattr(retry, "_READS", 2)
    await with_gaps(bench, 8)
    day = NOW.date()
    for name in (f"date={day}/odd.json", f"date={day}/nested/odd.json"):
        key = bench.keys.days("gaps", "hq") + name
        await bench.store.put(key, b"{}", sha256=hashlib.sha256(b"{}").hexdigest(), content_type="text/plain")
    report = await retry_gaps(bench.services, bench.source, None)
    assert (report.on_record, report.archived, report.not_tried) == (9, 8, 1)
    assert "odd.json is no gap record" in report.errors[0]
    assert bench.vendor.opened == [f"rec-{number}" for number in range(8)]


async def test_an_id_that_a_key_cannot_hold_may_be_given_either_way(bench: Bench) -> None:
    """The vendor's id as in the record, or as in the key."""
    for number, name in enumerate(("a/b c", "d/e f")):
        recording = bench.vendor.add(number, id=name)
        await write_gap(bench.services, bench.desk, recording, GapReason.EMPTY, "empty")
    assert (await retry_gaps(bench.services, bench.source, "a/b c")).archived == 1
    assert (await retry_gaps(bench.services, bench.source, "d~2Fe~20f")).archived == 1
    unknown = await retry_gaps(bench.services, bench.source, "nobody's")
    assert (unknown.on_record, unknown.held) == (0, 0)


@pytest.mark.parametrize("max_window", [None, timedelta(hours=6)])
async def test_only_the_time_around_each_start_is_listed(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, max_window: timedelta | None
) -> None:
    """An hour at both sides, joined where they touch; everything once where the phone system knows no spans."""
    filters_by_time(bench, monkeypatch, max_window)
    for number, minutes in enumerate((5000, 4900, 60)):
        recording = bench.vendor.add(number, minutes_ago=minutes)
        await write_gap(bench.services, bench.desk, recording, GapReason.EMPTY, "empty")
    assert (await retry_gaps(bench.services, bench.source, None)).archived == 3
    asked = [
        ((NOW - w.start) / timedelta(minutes=1), (NOW - w.end) / timedelta(minutes=1)) for w in bench.vendor.windows
    ]
    assert asked == ([(5060, 0)] if max_window is None else [(5060, 4840), (120, 0)])


@pytest.mark.parametrize(
    ("trouble", "reason"),
    [
        (GiveUp("403 again", GapReason.FORBIDDEN), GapReason.FORBIDDEN),
        (Retry("500"), GapReason.GAVE_UP),
        (FakeStream(b"<html>"), GapReason.NOT_AUDIO),
    ],
)
async def test_what_fails_again_is_a_gap_brought_up_to_date(bench: Bench, trouble: Any, reason: GapReason) -> None:
    """Tries and time of the last are new, the first sighting is kept; no pass takes up what retry left."""
    await with_gaps(bench, 1, GapReason.EMPTY)
    bench.vendor.script["rec-0"] = [trouble] * 9
    bench.clock.advance(3600)
    report = await retry_gaps(bench.services, bench.source, None)
    assert (report.gaps, report.pending, report.to_retry, report.not_tried) == (1, 0, 0, 0)
    assert report.still[0]["recording_id"] == "rec-0"
    assert report.public()["still"][0]["reason"] == reason.value
    gap = await bench.gap(bench.vendor.recordings[0])
    assert (gap.reason, gap.tries, gap.first_seen_at, gap.last_try_at) == (reason, 2, NOW, bench.clock.now())
    assert await bench.services.state.attempts("hq") == {}
    opened = len(bench.vendor.opened)
    for _ in range(3):
        bench.clock.advance(7200)
        assert (await run_source(bench.services, bench.source)).gaps_on_record == 1
    assert len(bench.vendor.opened) == opened


async def test_the_deaths_of_workers_are_forgotten(bench: Bench) -> None:
    """A gap `crashed` gets a new beginning; it would be given up before its first try otherwise."""
    await with_gaps(bench, 1, GapReason.CRASHED)
    await bench.services.state.save_attempt("hq", "rec-0", Attempt(NOW, 3, NOW, "died", MAX_CRASHES))
    assert (await retry_gaps(bench.services, bench.source, "rec-0")).archived == 1
    assert await bench.services.state.attempts("hq") == {}


async def test_evidence_goes_on_being_numbered(bench: Bench) -> None:
    """Bytes that are wrong again are kept beside the first ones."""
    recording = bench.vendor.add(1, claimed_hash=ClaimedHash("SHA256", "0" * 64))
    await run_source(bench.services, bench.source)
    await retry_gaps(bench.services, bench.source, "rec-1")
    kept = [key for key in await bench.everything() if "/quarantine/" in key]
    assert [key.rpartition("/")[2] for key in kept] == ["rec-1.1.wav", "rec-1.2.wav"]
    assert "rec-1.2.wav" in (await bench.gap(recording)).detail


async def test_one_that_is_listed_no_more_stays_a_gap_and_says_so_once(bench: Bench) -> None:
    """Its reason stays; the sentence is not repeated at every further try."""
    await with_gaps(bench, 1)
    bench.vendor.recordings, kept = [], bench.vendor.recordings
    for tries in (2, 3):
        report = await retry_gaps(bench.services, bench.source, None)
        assert (report.gaps, report.not_tried) == (1, 0)
        gap = await bench.gap(kept[0])
        assert (gap.reason, gap.tries) == (GapReason.FORBIDDEN, tries)
        assert gap.detail == "403; asked for again, and the phone system lists it no more"


async def test_rows_without_a_readable_start_cannot_be_looked_up(bench: Bench) -> None:
    """They are left as they are, and it is said what will help; so is one whose row cannot be read any more."""
    await write_unreadable(bench.services, bench.desk, Unreadable("undated", "no start", {}))
    await with_gaps(bench, 2)
    bench.vendor.recordings.pop()
    bench.vendor.unreadable = (Unreadable("rec-1", "start is no time", {}), Unreadable(None, "no id", {}))
    report = await retry_gaps(bench.services, bench.source, None)
    assert (report.archived, report.gaps, report.not_tried) == (1, 0, 2)
    assert "run --from --to" in report.errors[0]
    assert report.errors[1] == "hq: rec-1 was not tried: start is no time"
    assert [told["recording_id"] for told in report.still] == ["undated", "rec-1"]


async def test_an_answer_that_cannot_be_read_concerns_its_own_span(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gaps of other times are tried, those of this one are left."""
    filters_by_time(bench, monkeypatch, timedelta(hours=6))
    await with_gaps(bench, 3)
    bench.vendor.listing = [None, BadAnswer("no JSON")]
    report = await retry_gaps(bench.services, bench.source, None)
    assert (report.archived, report.not_tried) == (2, 1)
    assert report.errors == ["hq: rec-1 was not tried: no JSON"]


async def test_trouble_with_the_source_leaves_the_rest(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was found before it is archived; nothing is said to be gone from a phone system that does not answer."""
    filters_by_time(bench, monkeypatch, timedelta(hours=6))
    await with_gaps(bench, 3)
    bench.vendor.listing = [None, StopSource("password refused")]
    report = await retry_gaps(bench.services, bench.source, None)
    assert (report.archived, report.gaps, report.not_tried, report.unusable) == (1, 0, 2, False)
    assert report.errors[-1] == "password refused"
    bench.vendor.listing = [StopSource("password refused")]
    assert (await retry_gaps(bench.services, bench.source, None)).unusable


async def test_what_was_not_reached_keeps_its_record(bench: Bench) -> None:
    """After twenty failures in a row the rest is not tried, and its records do not say that it was."""
    await with_gaps(bench, 60, apart=1)
    for number in range(60):
        bench.vendor.script[f"rec-{number}"] = [Retry("500")] * 9
    report = await retry_gaps(bench.services, bench.source, None)
    assert report.gaps + report.not_tried == 60
    assert report.not_tried > 20
    assert "failed and none was archived" in report.errors[0]
    assert (await bench.gap(bench.vendor.recordings[-1])).tries == 1
    assert await bench.services.state.attempts("hq") == {}


async def test_one_that_is_still_being_saved_stays_a_gap(bench: Bench) -> None:
    """It is told as what a pass would call it by now."""
    recording = bench.vendor.add(1, readiness=Readiness.NOT_YET)
    await write_gap(bench.services, bench.desk, recording, GapReason.GAVE_UP, "saving")
    assert (await retry_gaps(bench.services, bench.source, None)).gaps == 1


async def test_only_so_many_are_told_in_words(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The figures count all; a long list of what is missing is cut."""
    monkeypatch.setattr(retry, "_TOLD", 2)
    await with_gaps(bench, 4)
    for number in range(4):
        bench.vendor.script[f"rec-{number}"] = [GiveUp("403", GapReason.FORBIDDEN)]
    report = await retry_gaps(bench.services, bench.source, None)
    assert (report.gaps, len(report.still)) == (4, 2)


async def test_a_gap_record_that_is_gone_reads_as_none(bench: Bench) -> None:
    """Somebody with the right to delete may have removed it meanwhile."""
    assert await read_gap(bench.services, "v1/gaps/source=hq/date=2026-03-05/x.json") is None
