"""One batch of destruction: what stops it, what is kept in the last moment, and what a death in the middle leaves."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from config.retention import LockMode, Period, Retention
from storage.certificate import Cause, Certificate, Fate
from storage.errors import AlreadyExists, StoreUnavailable, VersionLocked
from storage.keys import utc_date
from storage.lock import Lock
from tests.support.expiring import POLICY, Archive
from tests.support.meddled import Killed, killing, nothing
from worker.certificates import unfinished, write
from worker.destroy import destroy
from worker.due import Due, judge
from worker.index import Index
from worker.model import Recording
from worker.outcome import Fate as Archived
from worker.remains import look


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    """Return an empty archive under thirty days for all."""
    return Archive(tmp_path)


async def two(archive: Archive) -> list[Recording]:
    """Return two recordings that are due; the first is the one that tests spoil."""
    made = await archive.add(1, 2)
    archive.later(31)
    return made


def sidecar(archive: Archive, recording: Recording) -> str:
    """Return where the sidecar lies."""
    return next(key for key in archive.of(recording) if key.endswith(".json"))


def media(archive: Archive, recording: Recording) -> str:
    """Return where the media lie."""
    return next(key for key in archive.of(recording) if key.endswith(".wav"))


async def stops(archive: Archive, *words: str) -> None:
    """See that a run destroys nothing and says why, naming the recording; and that a dry run says the same."""
    before = archive.store.all_versions()
    for dry_run in (True, False):
        report = await archive.expire(dry_run=dry_run)
        assert report.stopped
        assert len(report.errors) == 1
        for word in ("hq/rec-1", *words):
            assert word in report.errors[0]
        assert archive.store.all_versions() == before


async def test_a_sidecar_that_cannot_be_read_stops_the_run(archive: Archive) -> None:
    """Nobody knows then how long it is kept."""
    spoilt, _ = await two(archive)
    key = sidecar(archive, spoilt)
    archive.store.versions_of[key][0] = replace(archive.store.versions_of[key][0], body=b"{}")
    await stops(archive, key, "cannot be read as a sidecar")


async def test_a_sidecar_of_another_recording_stops_the_run(archive: Archive) -> None:
    """Its dates are not this one's."""
    spoilt, other = await two(archive)
    key = sidecar(archive, spoilt)
    body = archive.store.versions_of[sidecar(archive, other)][0].body
    archive.store.versions_of[key][0] = replace(archive.store.versions_of[key][0], body=body)
    await stops(archive, key, "describes hq/rec-2")


async def test_a_version_that_is_not_accounted_for_stops_the_run(archive: Archive) -> None:
    """Media of another length, of another ending, and a sidecar that was written over."""
    spoilt, _ = await two(archive)
    for key in (media(archive, spoilt), media(archive, spoilt).replace(".wav", ".mp3")):
        archive.put_aside(key, b"other bytes")
        await stops(archive, key, "11 bytes", "not what the sidecar describes")
        archive.store.versions_of[key].pop()
        for empty in [key for key, rows in archive.store.versions_of.items() if not rows]:
            del archive.store.versions_of[empty]
    key = sidecar(archive, spoilt)
    archive.put_aside(key, archive.store.versions_of[key][0].body + b" ")
    await stops(archive, key, "not what the sidecar describes")


async def test_a_second_version_of_the_same_goes_too(archive: Archive) -> None:
    """A store without create-only writes may have let two in; what of them cannot be read has no hash."""
    doubled, _ = await two(archive)
    for key in archive.of(doubled):
        archive.put_aside(key, archive.store.versions_of[key][0].body)
    assert (await archive.expire()).destroyed == 2
    assert not archive.there(doubled)
    [certificate] = archive.certificates()
    hashes = [version.sha256 is not None for version in certificate.recordings[0].versions]
    assert hashes == [True, False, True, False]


async def test_media_that_are_gone_stop_the_run(archive: Archive) -> None:
    """Somebody else deletes here."""
    spoilt, _ = await two(archive)
    key = media(archive, spoilt)
    del archive.store.versions_of[key]
    await stops(archive, key, "is gone, and its sidecar is there")


@pytest.mark.parametrize("what", [sidecar, media])
async def test_a_delete_marker_stops_the_run_and_is_no_destruction(archive: Archive, what: object) -> None:
    """What it hides is all there, also where a plain listing no longer shows the recording."""
    spoilt, _ = await two(archive)
    key = what(archive, spoilt)  # type: ignore[operator]
    archive.hide(key)
    before = archive.store.all_versions()
    report = await archive.expire()
    assert report.stopped
    assert "delete marker hides " + key in report.errors[0]
    assert archive.store.all_versions() == before


async def test_a_legal_hold_without_a_matter_stops_the_run(archive: Archive) -> None:
    """Somebody set it by hand, and nobody knows why."""
    spoilt, _ = await two(archive)
    await archive.flag(spoilt, on=True)
    await stops(archive, "no matter says why", "callvault hold add")


async def test_what_does_not_concern_what_is_due_stops_nothing(archive: Archive) -> None:
    """Media without a sidecar, somebody else's objects, and trouble with recordings whose time is not over."""
    await two(archive)
    day = "v1/recordings/source=hq/date=2026-03-05/"
    archive.put_aside(day + "orphan.wav")
    archive.put_aside(day + "somebody else's notes")
    archive.put_aside("v1/recordings/other/readme.txt")
    [young] = await archive.add(3, days_ago=-1.5)
    archive.hide(media(archive, young))
    assert (await archive.expire()).errors == []


async def test_a_store_that_refuses_what_it_should_allow_stops_the_run(archive: Archive) -> None:
    """Nothing protects it, and still: the batch is completed truthfully, and nothing more is begun."""
    spoilt, other = await two(archive)
    third = (await archive.add(3, days_ago=1))[0]

    async def refuses(name: str, key: str) -> None:
        if name == "delete_version" and "rec-1" in key:
            raise VersionLocked("AccessDenied: Object is WORM protected", key)

    archive.store.before = refuses
    report = await archive.expire()
    assert report.stopped
    assert "hq/rec-1: the store does not let" in report.errors[0]
    assert "clock" in report.errors[0]
    assert archive.there(spoilt)
    [certificate] = archive.certificates()
    told = {item.recording_id: (item.fate, item.kept_because) for item in certificate.recordings}
    assert certificate.state == "complete"
    assert told["rec-1"] == (Fate.KEPT, report.errors[0])
    for recording in (other, third):
        fate, _ = told[recording.id]
        assert fate is (Fate.KEPT if archive.there(recording) else Fate.DESTROYED)
    archive.store.before = archive.store.after
    assert (await archive.expire()).errors == []
    assert not any(archive.there(recording) for recording in (spoilt, other, third))


async def test_what_comes_after_a_surprise_is_not_begun(archive: Archive) -> None:
    """It is kept, and the certificate says what the run met before it."""
    made = await archive.add(*range(40))
    archive.later(31)

    async def flags(name: str, key: str) -> None:
        if name == "put" and "/certificates/" in key:
            for recording in made:
                for row in archive.of(recording):
                    rows = archive.store.versions_of[row]
                    rows[0] = replace(rows[0], legal_hold=True)

    archive.store.after = flags
    report = await archive.expire()
    assert report.stopped
    [certificate] = archive.certificates()
    assert {item.fate for item in certificate.recordings} == {Fate.KEPT}
    assert "the run was stopped before it: hq/" in (certificate.recordings[-1].kept_because or "")
    assert archive.note(made[-1]) is None


@pytest.mark.parametrize("swept", [True, False])
async def test_a_hold_between_certificate_and_deletion_keeps_the_recording(archive: Archive, swept: bool) -> None:
    """Also before its legal holds are set. The certificate says by which matter; the others of the batch go; after the
    release this one does.
    """
    held, other = await two(archive)
    holds = []

    async def places(name: str, key: str) -> None:
        if name == "put" and "/certificates/" in key and not holds:
            holds.append(None)
            holds[0] = await archive.hold("acme", held, sweep=swept)

    archive.store.after = places
    report = await archive.expire()
    assert (report.destroyed, report.stopped) == (1, False)
    assert report.errors == ["hq/rec-1 is kept: held by matter acme"]
    assert archive.there(held)
    assert not archive.there(other)
    [certificate] = archive.certificates()
    item = certificate.recordings[0]
    assert (item.fate, item.kept_because, item.destroyed_at) == (Fate.KEPT, "held by matter acme", None)
    assert [version.gone_at for version in item.versions] == [None, None]
    await archive.release(holds[0], held)
    assert (await archive.expire()).destroyed == 1
    assert not archive.there(held)


async def test_a_hold_in_the_moment_of_the_deletion_keeps_the_recording(archive: Archive) -> None:
    """The store refuses, the matter explains it: kept, nothing else. Its note was written, and that harms nobody."""
    held, _ = await two(archive)
    first = sidecar(archive, held)
    holds = []

    async def places(name: str, key: str) -> None:
        if (name, key) == ("delete_version", first) and not holds:
            holds.append(None)
            holds[0] = await archive.hold("acme", held)

    archive.store.before = places
    report = await archive.expire()
    assert report.errors == ["hq/rec-1 is kept: held by matter acme"]
    assert len(archive.of(held)) == 2
    assert archive.note(held)
    await archive.release(holds[0], held)
    assert (await archive.expire()).destroyed == 1
    note = archive.note(held)
    assert note
    assert (
        Certificate.model_validate_json(archive.store.versions_of[note.certificate][-1].body).recordings[0].recording_id
        == "rec-1"
    )


async def test_a_lock_that_grows_meanwhile_keeps_the_recording(archive: Archive) -> None:
    """Before anything of it is asked, or in the moment of the deletion."""
    grown, other = await two(archive)
    until = archive.clock.now() + timedelta(days=9)

    async def extends(name: str, key: str) -> None:
        lock = Lock(LockMode.GOVERNANCE, until)
        if name == "put" and "/certificates/" in key and name not in done:
            await archive.store.extend_lock(media(archive, grown), None, lock)
        elif (name, key) == ("put", f"v1/destroyed/source=hq/date={utc_date(other.started_at)}/rec-2.json"):
            await archive.store.extend_lock(sidecar(archive, other), None, lock)
        done.append(name)

    done: list[str] = []
    archive.store.after = extends
    report = await archive.expire()
    assert sorted(report.errors) == [
        f"hq/{name} is kept: locked until {until:%Y-%m-%dT%H:%M:%SZ}" for name in ("rec-1", "rec-2")
    ]
    assert len(archive.of(grown)) == len(archive.of(other)) == 2


async def test_half_a_recording_is_finished_later_and_never_passed_off_as_destroyed(archive: Archive) -> None:
    """The sidecar is gone and the media are held: the certificate stays begun until the rest may go too."""
    held, other = await two(archive)
    key = media(archive, held)

    async def places(name: str, asked: str) -> None:
        if (name, asked) == ("delete_version", key):
            archive.store.before = archive.store.after
            await archive.hold("acme", held, sweep=False)
            await archive.store.set_legal_hold(key, None, on=True)

    archive.store.before = places
    report = await archive.expire()
    told = "hq/rec-1 is destroyed in part only: held by matter acme"
    assert (report.destroyed, report.errors, report.stopped) == (1, [told], False)
    [certificate] = archive.certificates()
    assert certificate.state == "begun"
    assert (await archive.expire()).errors == [told]
    assert not archive.there(other)
    hold = (await archive.services.matters.active())[0]
    await archive.release(hold)
    await archive.store.set_legal_hold(key, None, on=False)
    assert (await archive.expire()).errors == []
    [certificate] = archive.certificates()
    assert certificate.state == "complete"
    assert {item.fate for item in certificate.recordings} == {Fate.DESTROYED}
    assert not archive.there(held)


async def test_a_store_that_only_says_that_it_deletes_is_found_out(archive: Archive) -> None:
    """What is listed still is not destroyed, whatever was answered."""
    kept, _ = await two(archive)
    key = media(archive, kept)
    rows = list(archive.store.versions_of[key])

    async def brings_back(name: str, asked: str) -> None:
        if (name, asked) == ("delete_version", key):
            archive.store.versions_of[key] = list(rows)

    archive.store.after = brings_back
    report = await archive.expire()
    assert report.errors == [
        "hq/rec-1 is destroyed in part only: the store said that it is deleted, and lists it still"
    ]
    assert archive.certificates()[0].state == "begun"


async def test_trouble_with_the_bucket_leaves_the_certificate_begun(archive: Archive) -> None:
    """The next run goes on with it, and it says in the end what happened."""
    made = await two(archive)

    async def fails(name: str, key: str) -> None:
        if name == "delete_version":
            raise StoreUnavailable("503 SlowDown", key)

    archive.store.before = fails
    with pytest.raises(StoreUnavailable):
        await archive.expire()
    assert [one.state for one in archive.certificates()] == ["begun"]
    assert await unfinished(archive.services) == [key for key in archive.store.versions_of if "/certificates/" in key]
    archive.store.before = archive.store.after
    assert (await archive.expire(dry_run=True)).unfinished == 1
    report = await archive.expire()
    assert (report.destroyed, report.errors) == (2, [])
    assert [one.state for one in archive.certificates()] == ["complete"]
    assert not any(archive.there(recording) for recording in made)


async def test_what_was_begun_is_judged_anew_by_who_goes_on(archive: Archive) -> None:
    """A day later, under a longer policy: what is whole is kept, and the certificate says why."""
    made = await archive.add(1, 2)
    archive.later(31)

    async def dies(name: str, key: str) -> None:
        if name == "delete_version":
            raise Killed

    archive.store.before = dies
    with pytest.raises(Killed):
        await archive.expire()
    archive.store.before = nothing
    archive.later(1)
    archive.policy(replace(POLICY, default=Period(days=60)))
    report = await archive.expire()
    assert report.destroyed == 0
    assert all("by the policy in force, its default" in error for error in report.errors)
    assert len(report.errors) == 2
    assert all(archive.there(recording) for recording in made)
    assert [one.state for one in archive.certificates()] == ["complete"]


async def test_without_any_promise_left_nothing_that_was_begun_goes_on(archive: Archive) -> None:
    """A certificate of a policy that is gone, over recordings that were never promised an end."""
    archive.policy(Retention())
    [recording] = await archive.add(1)
    archive.policy(POLICY)
    archive.later(31)

    async def dies(name: str, key: str) -> None:
        if name == "delete_version":
            raise Killed

    archive.store.before = dies
    with pytest.raises(Killed):
        await archive.expire()
    archive.store.before = nothing
    archive.policy(Retention())
    report = await archive.expire()
    assert report.errors == ["hq/rec-1 is kept: nothing says any more until when it is kept"]
    assert archive.there(recording)


async def test_a_certificate_that_cannot_be_read_stops_the_run(archive: Archive) -> None:
    """And so does a note, or a note of a certificate that is gone: nobody knows what was begun."""
    [spoilt, _] = await two(archive)
    archive.put_aside("v1/certificates/date=2026-01-01/odd.json", b"{}")
    report = await archive.expire()
    assert report.stopped
    assert "v1/certificates/date=2026-01-01/odd.json is no certificate" in report.errors[0]
    del archive.store.versions_of["v1/certificates/date=2026-01-01/odd.json"]
    key = archive.keys.destroyed("hq", utc_date(spoilt.started_at), "rec-1")
    archive.put_aside(key, b"{}")
    report = await archive.expire()
    assert report.stopped
    assert f"{key} is no note" in report.errors[0]


async def test_what_another_batch_has_is_left_to_it(archive: Archive) -> None:
    """Its note names a certificate that is under way: another run destroys it just now."""
    taken, _other = await two(archive)
    await archive.expire()
    theirs = archive.note(taken)
    assert theirs
    archive.store.versions_of[theirs.certificate].pop()  # as if it were under way still
    assert await archive.archive(taken) is Archived.ARCHIVED  # and not deleted yet
    remains = (await look(archive.services, "hq", utc_date(taken.started_at)))["rec-1"]
    due = await judge(archive.services, remains)
    assert isinstance(due, Due)
    batch = await destroy(archive.services, [due], cause=Cause.RETENTION, by="tester")
    assert [item.kept_because for item in batch.kept] == [
        f"certificate {theirs.certificate} has it, which is under way"
    ]
    assert archive.there(taken)


async def test_an_answer_that_was_lost_is_no_conflict(archive: Archive) -> None:
    """Create-only met what this process itself had written; something else there is trouble."""
    await two(archive)

    async def loses(name: str, key: str) -> None:
        if name == "put" and key not in lost:
            lost.append(key)
            raise AlreadyExists(f"{key} is there", key)

    lost: list[str] = []
    archive.store.after = loses
    assert (await archive.expire()).destroyed == 2
    assert len(lost) == 3
    archive.store.after = nothing
    key = archive.keys.destroyed("hq", utc_date(None), "x")
    archive.put_aside(key)
    with pytest.raises(AlreadyExists):
        await write(archive.services, key, archive.certificates()[0], create_only=True)


async def test_in_a_bucket_that_lists_what_is_gone_nothing_goes_wrong(archive: Archive) -> None:
    """A sidecar or a version that vanishes between a listing and the look at it was somebody else's to delete."""
    gone, other = await two(archive)
    keys = archive.of(gone)

    async def vanishes(name: str, key: str) -> None:
        if name == "get" and key == sidecar_key:
            for one in keys:
                archive.store.versions_of.pop(one, None)

    sidecar_key = sidecar(archive, gone)
    archive.store.before = vanishes
    report = await archive.expire()
    assert (report.destroyed, report.errors) == (1, [])
    assert not archive.there(other)


async def test_evidence_that_vanishes_before_it_is_hashed_has_no_hash(archive: Archive) -> None:
    """And counts as gone, when that is looked at."""
    recording, _ = await two(archive)
    evidence = archive.keys.quarantine("hq", utc_date(recording.started_at), "rec-1", 1, "wav")
    archive.put_aside(evidence)

    real = archive.store.sha256

    async def sha256(key: str) -> str:
        archive.store.versions_of.pop(evidence, None)
        return await real(key)

    archive.store.sha256 = sha256  # type: ignore[method-assign]
    report = await archive.expire()
    assert (report.destroyed, report.errors) == (2, [])
    [certificate] = archive.certificates()
    assert [version.sha256 is None for version in certificate.recordings[0].versions] == [False, False, True]


async def test_versions_that_vanish_before_they_are_asked_about_count_as_gone(archive: Archive) -> None:
    """Another run was quicker: the certificate says when it was seen."""
    gone, _ = await two(archive)
    keys = archive.of(gone)

    async def vanishes(name: str, key: str) -> None:
        if name == "put" and "/certificates/" in key:
            for one in keys:
                archive.store.versions_of.pop(one, None)

    archive.store.after = vanishes
    report = await archive.expire()
    assert (report.destroyed, report.errors) == (2, [])


@pytest.mark.parametrize("done", [False, True], ids=["unanswered", "answered"])
async def test_killed_at_any_request_the_next_run_ends_where_this_one_would_have(tmp_path: Path, done: bool) -> None:
    """At every one of them in turn: all that was due is gone and certified once, nothing else is, and a poll in
    between would have archived nothing again.
    """
    number, ended = 0, False
    while not ended:
        number += 1
        archive = Archive(tmp_path / f"{done}{number}")
        due = await archive.add(1, 2, 3)
        [held] = await archive.add(4)
        await archive.hold("acme", held)
        archive.later(31)
        [young] = await archive.add(5, days_ago=-31)
        doomed = {(key, row.version_id) for r in due for key in archive.of(r) for row in archive.store.versions_of[key]}
        archive.store.before, archive.store.after = killing(number, done=done)
        try:
            await archive.expire()
            ended = True
        except Killed:
            pass
        archive.store.before = archive.store.after = nothing
        index = Index(archive.services, archive.bench.source)
        assert all([await index.held(r.id, utc_date(r.started_at)) for r in (*due, held, young)])
        claimed_before = _claimed(archive)
        assert all(key not in archive.store.versions_of for key, _ in claimed_before)
        archive.clock.advance(60)
        report = await archive.expire()
        assert report.errors == []
        assert not any(archive.there(recording) for recording in due)
        assert archive.there(held)
        assert archive.there(young)
        assert {one.state for one in archive.certificates()} == {"complete"}
        assert _claimed(archive) == doomed
        assert all(archive.note(recording) for recording in due)
        assert archive.note(held) is None
        assert not any(row.marker for rows in archive.store.versions_of.values() for row in rows)
    assert number > 30


def _claimed(archive: Archive) -> set[tuple[str, str | None]]:
    """Return the versions that completed certificates say are destroyed; each in one certificate only."""
    rows = [
        (version.key, version.version_id)
        for certificate in archive.certificates()
        if certificate.state == "complete"
        for item in certificate.recordings
        if item.fate is Fate.DESTROYED
        for version in item.versions
    ]
    assert len(rows) == len(set(rows))
    return set(rows)


async def test_what_lost_its_sidecar_to_a_death_is_kept_by_any_matter_that_may_mean_it(archive: Archive) -> None:
    """Nobody can tell any more whose number it was; what that matter is not about in any case goes on."""
    [recording] = await archive.add(1)
    archive.later(31)

    async def dies(name: str, key: str) -> None:
        if name == "delete_version" and key.endswith(".wav"):
            raise Killed

    archive.store.before = dies
    with pytest.raises(Killed):
        await archive.expire()
    archive.store.before = nothing
    matter = await archive.hold("smith", number="5550100", source="hq", sweep=False)
    await archive.hold("other-site", number="5550100", source="elsewhere", sweep=False)
    report = await archive.expire()
    assert report.errors == ["hq/rec-1 is destroyed in part only: held by matter smith"]
    await archive.flag(recording, on=True)
    assert (await archive.expire()).errors == report.errors
    await archive.release(matter)
    report = await archive.expire()
    assert not report.stopped
    assert "smith, which is released" in report.errors[0]
    assert archive.there(recording)
    await archive.flag(recording, on=False)
    assert (await archive.expire()).destroyed == 1
    assert not archive.there(recording)
