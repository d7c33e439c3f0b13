"""An expiry run: what is due goes, with a certificate, and nothing else does."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from config.retention import LockMode, Period, Retention, Rule
from storage.certificate import Cause, Fate, Part
from storage.keys import utc_date
from storage.lock import Lock
from storage.retention import Kept
from storage.sidecar import GapReason
from tests.support.expiring import POLICY, Archive, end_of
from worker import expiry
from worker.audit import audit
from worker.certificates import unfinished
from worker.discovery import discover
from worker.due import Due, judge
from worker.gaps import write_gap
from worker.index import Index
from worker.model import Window
from worker.outcome import Fate as Archived
from worker.outcome import Report
from worker.pipeline import archive_one
from worker.remains import look


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    """Return an empty archive under thirty days for all."""
    return Archive(tmp_path)


async def test_what_is_due_goes_and_the_certificate_says_what_it_was(archive: Archive) -> None:
    """Every version of media and sidecar, by key, version and hash, with rule and dates, who and when."""
    [recording] = await archive.add(1)
    sidecar = await archive.bench.sidecar(recording)
    before = archive.store.all_versions()
    archive.later(31)
    report = await archive.expire()
    assert (report.destroyed, report.errors, report.more) == (1, [], False)
    assert not archive.there(recording)
    [certificate] = archive.certificates()
    assert (certificate.state, certificate.cause, certificate.by) == ("complete", Cause.RETENTION, "tester@test")
    assert (certificate.begun_at, certificate.completed_at) == (archive.clock.now(), archive.clock.now())
    assert certificate.policy == POLICY.version
    [item] = certificate.recordings
    assert (item.source, item.recording_id, item.sha256) == ("hq", recording.id, sidecar.media.sha256)
    assert (item.kept_until, item.because, item.rule) == (end_of(recording), "promise", None)
    assert (item.fate, item.destroyed_at, item.kept_because) == (Fate.DESTROYED, archive.clock.now(), None)
    assert [version.part for version in item.versions] == [Part.SIDECAR, Part.MEDIA]
    assert {version.key: [version.version_id] for version in item.versions} == before
    assert all(version.sha256 and version.gone_at for version in item.versions)


async def test_the_certificate_is_there_before_the_first_deletion(archive: Archive) -> None:
    """Then the note, then the sidecar, then the media, and at the end the certificate once more; all of it locked."""
    [recording] = await archive.add(1)
    archive.later(31)
    archive.store.said.clear()
    await archive.expire()
    done = [(name, key.split("/")[1]) for name, key in archive.store.said if name in ("put", "delete_version")]
    assert done == [
        ("put", "certificates"),
        ("put", "destroyed"),
        ("delete_version", "recordings"),
        ("delete_version", "recordings"),
        ("put", "certificates"),
    ]
    deleted = [key for name, key in archive.store.said if name == "delete_version"]
    assert deleted[0].endswith(".json")
    until = archive.clock.now() + timedelta(days=30)
    rows = [row for rows in archive.store.versions_of.values() for row in rows]
    assert {row.lock for row in rows} == {Lock(LockMode.GOVERNANCE, until)}
    note = archive.note(recording)
    assert note
    assert note.certificate in archive.store.versions_of


async def test_nothing_goes_before_its_time(archive: Archive) -> None:
    """Not at the last second of the promise; at its end it does."""
    [recording] = await archive.add(1)
    archive.clock.advance((end_of(recording) - archive.clock.now()).total_seconds() - 1)
    assert (await archive.expire()).destroyed == 0
    archive.clock.advance(1)
    assert (await archive.expire()).destroyed == 1


async def test_the_longest_of_promise_policy_and_lock_counts(archive: Archive) -> None:
    """A policy made longer later, and a lock that was extended, keep a recording past its promise."""
    [recording] = await archive.add(1)
    archive.later(31)
    archive.policy(replace(POLICY, default=Period(days=40)))
    assert (await archive.expire()).destroyed == 0
    archive.policy(POLICY)
    media = next(key for key in archive.of(recording) if key.endswith(".wav"))
    await archive.store.extend_lock(media, None, Lock(LockMode.GOVERNANCE, archive.clock.now() + timedelta(days=2)))
    report = await archive.expire()
    assert (report.destroyed, report.sources["hq"].locked) == (0, 1)
    archive.later(3)
    assert (await archive.expire()).destroyed == 1
    [certificate] = archive.certificates()
    assert certificate.recordings[0].because == "lock"


async def test_what_nothing_promises_an_end_is_kept(archive: Archive) -> None:
    """Archived without a policy and under none today: there is no date, and expiry has nothing to say."""
    archive.policy(Retention())
    [recording] = await archive.add(1)
    archive.later(4000)
    assert (await archive.expire()).destroyed == 0
    archive.policy(POLICY)
    assert (await archive.expire()).destroyed == 1
    assert not archive.there(recording)


async def test_what_a_matter_holds_stays(archive: Archive) -> None:
    """Whether it is named or in the matter's scope, and whether its legal hold is set yet; until the release."""
    named, scoped, free = await archive.add(1, 2, 3)
    archive.bench.vendor.describes = None
    hold = await archive.hold("acme-2031", named)
    archive.later(31)
    window = {"from_": scoped.started_at, "to": scoped.started_at + timedelta(seconds=1), "number": "5550*"}
    other = await archive.hold("span", sweep=False, **window)
    report = await archive.expire()
    assert (report.destroyed, report.sources["hq"].held) == (0, 3)  # all three began in the same second
    await archive.release(other)
    report = await archive.expire()
    assert (report.destroyed, report.sources["hq"].held) == (2, 1)
    assert archive.there(named)
    assert not archive.there(scoped)
    assert not archive.there(free)
    await archive.release(hold, named)
    assert (await archive.expire()).destroyed == 1


async def test_a_legal_hold_that_is_still_being_lifted_is_no_surprise(archive: Archive) -> None:
    """The matter is released, the sweep has not come by yet: the recording waits, the others go."""
    held, free = await archive.add(1, 2)
    hold = await archive.hold("acme", held)
    await archive.release(hold)
    archive.later(31)
    report = await archive.expire()
    assert (report.destroyed, report.sources["hq"].held, report.errors) == (1, 1, [])
    assert archive.there(held)
    assert not archive.there(free)


async def test_evidence_and_gap_record_go_with_the_recording(archive: Archive) -> None:
    """Quarantine, and gap records of its own day and of the day of unreadable rows, each version of them."""
    recording = archive.bench.vendor.add(1)
    for _ in range(2):
        await write_gap(archive.services, archive.bench.desk, recording, GapReason.NOT_AUDIO, "a text")
    await archive.archive(recording)
    day = utc_date(recording.started_at)
    gap = archive.keys.gap("hq", day, "rec-1")
    undated = archive.keys.gap("hq", utc_date(None), "rec-1")
    evidence = archive.keys.quarantine("hq", day, "rec-1", 1, "wav")
    strange = archive.keys.gap("hq", utc_date(None), "rec-77")
    for key in (undated, strange, evidence, archive.keys.quarantine("hq", day, "rec-10", 1, "wav")):
        archive.put_aside(key, b"evidence")
    archive.put_aside(f"v1/quarantine/source=hq/date={day}/rec-1.x.wav")
    archive.put_aside(f"v1/quarantine/source=hq/date={day}/readme")
    archive.later(31)
    assert (await archive.expire()).destroyed == 1
    assert archive.of(recording) == [f"v1/quarantine/source=hq/date={day}/rec-1.x.wav"]
    [certificate] = archive.certificates()
    rows = [(version.part, version.key) for version in certificate.recordings[0].versions]
    assert rows[2:] == [("quarantine", evidence), ("gap", gap), ("gap", gap), ("gap", undated)]
    hashes = [version.sha256 is not None for version in certificate.recordings[0].versions]
    assert hashes == [True, True, True, True, False, True]  # of the gap record's first version nothing is known


async def test_a_destroyed_recording_is_not_archived_again(archive: Archive) -> None:
    """Polls count it as held, by the note in the bucket, after a flush of the state too; its neighbours as well."""
    [recording] = await archive.add(1)
    archive.later(31)
    await archive.expire()
    index = Index(archive.services, archive.bench.source)
    day = utc_date(recording.started_at)
    assert await index.held("rec-1", day)
    assert await index.held("rec-1", day + timedelta(days=1))
    assert not await index.held("rec-2", day)
    report = Report()
    window = Window(recording.started_at - timedelta(hours=1), archive.clock.now())
    found = await discover(archive.services, archive.bench.desk, window, report, 10)
    assert (found.to_archive, report.held) == ([], 1)


async def test_a_poll_in_the_middle_of_a_destruction_archives_nothing_again(archive: Archive) -> None:
    """Whatever a cold poll lists at any moment of it: the sidecar, or the note."""
    [recording] = await archive.add(1)
    day = utc_date(recording.started_at)
    archive.later(31)
    seen: list[bool] = []

    async def polls(name: str, key: str) -> None:
        if name in ("put", "delete_version"):
            seen.append(await Index(archive.services, archive.bench.source).held("rec-1", day))

    archive.store.before = archive.store.after = polls
    await archive.expire()
    assert len(seen) == 10
    assert all(seen)


async def test_days_that_are_too_young_cost_nothing(archive: Archive) -> None:
    """By the shortest time that any rule keeps a call; days after it are not even listed."""
    policy = replace(POLICY, default=Period(days=60), rules=(Rule("short", {"queue": "x"}, Period(days=20)),))
    archive.policy(policy)
    await archive.add(1)
    archive.later(19)
    await archive.add(2, days_ago=-19)
    archive.later(2)
    archive.store.said.clear()
    await archive.expire()
    read = [key for name, key in archive.store.said if name == "get" and "/recordings/" in key]
    assert read == [key for key in sorted(archive.store.versions_of) if key.endswith("rec-1.json")]


async def test_what_the_index_says_is_not_due_is_not_read_each_night(archive: Archive) -> None:
    """A rule of a few days must not have years of sidecars read; what is due is read, whatever the index says."""
    policy = replace(POLICY, default=Period(days=60), rules=(Rule("short", {"queue": "x"}, Period(days=20)),))
    archive.policy(policy)
    made = await archive.add(1, 2)
    await audit(archive.services)
    archive.later(21)
    archive.store.said.clear()
    await archive.expire()
    assert not [key for name, key in archive.store.said if name == "get" and "/recordings/" in key]
    archive.later(40)
    await archive.expire()
    assert not any(archive.there(recording) for recording in made)


async def test_without_a_promise_and_a_policy_nothing_is_judged_due(archive: Archive) -> None:
    """Nobody said how long it is kept: only an erasure may end that."""
    archive.policy(Retention())
    [recording] = await archive.add(1)
    remains = (await look(archive.services, "hq", utc_date(recording.started_at)))["rec-1"]
    assert await judge(archive.services, remains) is None
    archive.policy(POLICY)
    assert isinstance(await judge(archive.services, remains), Kept)
    archive.policy(Retention())
    assert isinstance(await judge(archive.services, remains, asked="rec-1"), Due)


async def test_a_day_of_which_nothing_is_due_still_tells_what_is_wrong_with_it(archive: Archive) -> None:
    """A sidecar that cannot be read stops the run, also where it is alone; what only a lock keeps is counted."""
    [recording] = await archive.add(1)
    for key in archive.of(recording):
        await archive.store.extend_lock(key, None, Lock(LockMode.GOVERNANCE, archive.clock.now() + timedelta(days=50)))
    await audit(archive.services)
    archive.later(31)
    assert (await archive.expire()).sources["hq"].locked == 1
    key = archive.keys.sidecar("hq", utc_date(recording.started_at), "rec-1")
    archive.store.versions_of[key][0] = replace(archive.store.versions_of[key][0], body=b"{}")
    report = await archive.expire()
    assert report.stopped
    assert f"{key} cannot be read" in report.errors[0]


async def test_a_dry_run_names_a_thousand_at_most(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    """And counts all."""
    monkeypatch.setattr(expiry, "_TOLD", 1)
    await archive.add(1, 2)
    archive.later(31)
    report = await archive.expire(dry_run=True)
    assert (report.destroyed, len(report.due)) == (2, 1)


async def test_a_run_stops_at_its_limit_and_says_so(archive: Archive) -> None:
    """The rest is the next run's; exactly at the limit nothing is said to be left."""
    made = await archive.add(*range(5))
    archive.later(31)
    report = await archive.expire(limit=2)
    assert (report.destroyed, report.more, report.limited) == (2, True, True)
    assert sum(archive.there(recording) for recording in made) == 3
    report = await archive.expire(limit=3)
    assert (report.destroyed, report.more) == (3, False)


async def test_one_certificate_is_about_a_hundred_recordings_at_most(archive: Archive) -> None:
    """More of them are batches, each with its own."""
    await archive.add(*range(103), body=b"RIFF\x24\0\0\0WAVEfmt tone")
    archive.later(31)
    report = await archive.expire()
    assert report.destroyed == 103
    assert sorted(len(one.recordings) for one in archive.certificates()) == [3, 100]
    assert len(report.certificates) == 2


async def test_between_batches_it_can_be_told_to_stop(archive: Archive) -> None:
    """Whoever looks on is told after each batch, and what is left is left for later."""
    await archive.add(*range(103), body=b"RIFF\x24\0\0\0WAVEfmt tone")
    archive.later(31)
    told: list[int] = []

    async def tell(report: object) -> None:
        told.append(report.destroyed)  # type: ignore[attr-defined]

    report = await archive.expire(told=tell, go_on=lambda: not told)
    assert (report.destroyed, report.more, report.limited, told) == (100, True, False, [100])


async def test_a_dry_run_writes_and_deletes_nothing(archive: Archive) -> None:
    """It names what the run will destroy, and its figures are those of the run."""
    [held, *_] = await archive.add(1, 2, 3)
    await archive.hold("acme", held)
    archive.later(31)
    before = archive.store.all_versions()
    dry = await archive.expire(dry_run=True)
    assert archive.store.all_versions() == before
    assert [told["recording_id"] for told in dry.due] == ["rec-2", "rec-3"]
    public = dry.public()
    assert public["due"][0]["kept_until"].endswith("Z")
    wet = await archive.expire()
    assert {**public, "dry_run": False, "certificates": wet.certificates} == {
        **wet.public(),
        "due": public["due"],
        "unfinished": 0,
    }
    assert wet.sources["hq"].bytes > 0


async def test_two_runs_at_once_destroy_everything_once(archive: Archive) -> None:
    """Without any lease: what one has noted the other leaves alone, and both certificates are true."""
    import asyncio

    made = await archive.add(*range(30))
    archive.later(31)
    reports = await asyncio.gather(archive.expire(), archive.expire())
    assert not any(archive.there(recording) for recording in made)
    fates = [item.fate for one in archive.certificates() for item in one.recordings]
    assert {one.state for one in archive.certificates()} == {"complete"}
    assert len(fates) >= 30
    assert sum(report.destroyed for report in reports) >= 30
    assert await unfinished(archive.services) == []
    assert [error for report in reports for error in report.errors if "is kept: certificate" not in error] == []


async def test_a_worker_that_archives_it_meanwhile_does_not_win(archive: Archive) -> None:
    """One that downloaded before the destruction and writes after it: the next run destroys that too."""
    [recording] = await archive.add(1)
    archive.later(31)
    again: list[Archived] = []

    async def archives(name: str, key: str) -> None:
        if name == "delete_version" and key.endswith(".json") and not again:
            again.append(Archived.PENDING)
            again[0] = (await archive_one(archive.services, archive.bench.desk, recording, None)).fate

    archive.store.after = archives
    report = await archive.expire()
    assert again == [Archived.ARCHIVED]
    assert report.destroyed == 1
    [certificate] = archive.certificates()
    assert certificate.recordings[0].fate is Fate.DESTROYED  # the versions that it names are gone
    assert len(archive.of(recording)) == 1  # a sidecar, whose media were of the old version
    report = await archive.expire()
    assert (report.destroyed, report.errors) == (1, [])
    assert not archive.there(recording)
    assert await Index(archive.services, archive.bench.source).held("rec-1", utc_date(recording.started_at))


async def test_what_a_matter_is_about_is_not_read_each_night(archive: Archive) -> None:
    """By the index, once there is one: a large matter would otherwise take a turn's whole time, and all turns after."""
    made = await archive.add(1, 2, days_ago=3)
    [other] = await archive.add(3)
    matter = await archive.hold("smith", *made)
    await audit(archive.services)
    archive.later(31)
    archive.store.said.clear()
    report = await archive.expire()
    assert (report.destroyed, report.sources["hq"].held) == (1, 2)
    assert not archive.there(other)
    read = [key for name, key in archive.store.said if name == "get"]
    assert not {key for recording in made for key in archive.of(recording)} & set(read)
    await archive.release(matter, *made)
    assert (await archive.expire()).destroyed == 2
