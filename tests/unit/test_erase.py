"""Requests to erase a recording: erased, refused with what forbids it, or deferred and carried out at the date."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from config.retention import Period, Retention, Rule
from storage.certificate import Cause, Fate
from storage.errors import StoreUnavailable
from storage.keys import utc_date
from storage.sidecar import GapReason
from tests.support.expiring import POLICY, Archive, end_of
from tests.support.meddled import Killed, nothing
from worker.audit import audit
from worker.discovery import discover
from worker.due import Surprise
from worker.erase import Answer, Outcome, erase
from worker.gaps import write_gap, write_unreadable
from worker.index import Index
from worker.indexing import known_rows
from worker.model import Recording, Unreadable, Window
from worker.outcome import Fate as Archived
from worker.outcome import Report


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    """Return an empty archive under thirty days for all."""
    return Archive(tmp_path)


@pytest.fixture
def free(tmp_path: Path) -> Archive:
    """Return an archive without a policy, in a bucket without versions."""
    return Archive(tmp_path / "free", Retention(), versioned=False)


async def ask(archive: Archive, recording: Recording | str = "rec-1", source: str = "hq") -> Answer:
    """Ask for a recording to be erased."""
    id_ = recording if isinstance(recording, str) else recording.id
    return await erase(archive.services, source, id_, reason="Art. 17", by="officer@desk")


async def polled(archive: Archive, recording: Recording) -> tuple[int, int]:
    """Return how many recordings a poll would archive, and how many it counts as held, with an empty state."""
    archive.services.state._sources.clear()  # type: ignore[attr-defined]
    report = Report()
    window = Window(recording.started_at - timedelta(hours=1), recording.started_at + timedelta(hours=1))
    found = await discover(archive.services, archive.bench.desk, window, report, 10)
    return len(found.to_archive), report.held


@pytest.mark.parametrize("kind", ["archive", "free"])
async def test_what_nothing_forbids_is_erased_at_once(kind: str, request: pytest.FixtureRequest) -> None:
    """Where its time is over, or nobody promised any: by the same destruction, with the reason in the certificate."""
    archive: Archive = request.getfixturevalue(kind)
    [recording] = await archive.add(1)
    if kind == "archive":
        archive.later(31)
    answer = await ask(archive, recording)
    assert (answer.outcome, answer.detail) == (Outcome.ERASED, "hq/rec-1 is erased")
    assert not archive.there(recording)
    [certificate] = archive.certificates()
    assert (certificate.cause, certificate.reason, certificate.by) == (Cause.ERASURE, "Art. 17", "officer@desk")
    assert (certificate.state, certificate.recordings[0].fate) == ("complete", Fate.DESTROYED)
    assert (certificate.policy is None) is (kind == "free")
    assert answer.certificates == [key for key in archive.store.versions_of if "/certificates/" in key]
    erasure = archive.erasure(recording)
    assert erasure
    assert (erasure.state, erasure.certificate) == ("erased", answer.certificates[0])
    assert await polled(archive, recording) == (0, 1)
    assert await ask(archive, recording) == replace(
        answer, detail=f"hq/rec-1 was destroyed, see {answer.certificates[0]}", batch=None
    )


async def test_a_matter_refuses_and_is_named(archive: Archive) -> None:
    """Nothing is put on record of it, and nothing happens later by itself."""
    [recording] = await archive.add(1)
    archive.later(31)
    await archive.hold("acme-2031", recording)
    answer = await ask(archive, recording)
    assert (answer.outcome, answer.matters) == (Outcome.REFUSED, ["acme-2031"])
    assert answer.detail == "hq/rec-1 is not erased: held by matter acme-2031; ask again once it is released"
    assert archive.there(recording)
    assert archive.erasure(recording) is None
    assert archive.certificates() == []


async def test_without_expiry_what_is_kept_is_refused_with_rule_and_date(archive: Archive) -> None:
    """Nobody would carry it out at the date."""
    rules = (Rule("desk", {"number": "5550*"}, Period(days=90)),)
    archive.policy(replace(POLICY, expire=False, rules=rules))
    [recording] = await archive.add(1)
    answer = await ask(archive, recording)
    assert (answer.outcome, answer.until, answer.rule) == (Outcome.REFUSED, end_of(recording, 90), "desk")
    assert answer.detail == (
        'hq/rec-1 is not erased: kept until 2026-06-03T11:00:10Z as was promised when it was archived, rule "desk".'
        " With expire = true in [retention] it would be erased then"
    )
    assert archive.there(recording)
    assert archive.erasure(recording) is None


async def test_what_is_kept_is_deferred_and_carried_out_at_the_date(archive: Archive) -> None:
    """By the expiry run, under the certificate of an erasure; asking again changes nothing but what is known."""
    [recording] = await archive.add(1)
    answer = await ask(archive, recording)
    until = end_of(recording)
    assert (answer.outcome, answer.until, answer.rule) == (Outcome.DEFERRED, until, None)
    assert "kept until 2026-04-04T11:00:10Z as was promised when it was archived, its default, and" in answer.detail
    asked = archive.erasure(recording)
    assert asked
    assert (asked.state, asked.until, asked.because, asked.by) == ("deferred", until, "promise", "officer@desk")
    assert (await ask(archive, recording)).outcome is Outcome.DEFERRED
    assert archive.erasure(recording) == asked
    archive.clock.advance((until - archive.clock.now()).total_seconds() - 1)
    assert (await archive.expire()).destroyed == 0
    archive.clock.advance(1)
    report = await archive.expire()
    assert (report.destroyed, report.sources["hq"].erased, report.errors) == (1, 1, [])
    assert not archive.there(recording)
    [certificate] = archive.certificates()
    assert (certificate.cause, certificate.reason, certificate.by) == (Cause.ERASURE, "Art. 17", "tester@test")
    done = archive.erasure(recording)
    assert done == asked.model_copy(update={"state": "erased", "certificate": report.certificates[0]})
    assert await polled(archive, recording) == (0, 1)
    report = await archive.expire()
    assert (report.destroyed, report.errors, report.certificates) == (0, [], [])


async def test_a_deferred_request_waits_for_matters_and_for_a_date_that_has_moved(archive: Archive) -> None:
    """At its date a matter holds it, then a longer policy keeps it; in the end it goes."""
    [recording] = await archive.add(1)
    await ask(archive, recording)
    hold = await archive.hold("acme", recording)
    archive.later(31)
    report = await archive.expire()
    assert (report.destroyed, report.sources["hq"].held, report.errors) == (0, 2, [])  # as asked for, and as due
    await archive.release(hold, recording)
    archive.policy(replace(POLICY, default=Period(days=40)))
    assert (await archive.expire()).destroyed == 0
    asked = archive.erasure(recording)
    assert asked
    assert (asked.state, asked.until, asked.because) == ("deferred", end_of(recording, 40), "policy")
    archive.later(9)
    assert (await archive.expire()).sources["hq"].erased == 1


async def test_what_the_phone_system_never_gave_is_not_there(archive: Archive) -> None:
    """Neither a recording nor a gap: it is said, and nothing is written."""
    await archive.add(1, 11)
    before = archive.store.all_versions()
    for name, source in (("rec-2", "hq"), ("rec", "hq"), ("rec-1", "branch")):
        answer = await ask(archive, name, source)
        assert answer.outcome is Outcome.MISSING
        assert f"{source}/{name} is not in the archive" in answer.detail
    assert archive.store.all_versions() == before


async def test_gap_record_and_evidence_are_erased_with_it(archive: Archive) -> None:
    """With the recording, and where there is nothing but them: never archived, and never will be."""
    recording, other, odd = (archive.bench.vendor.add(number) for number in (1, 2, 3))
    for one in (recording, other):
        await write_gap(archive.services, archive.bench.desk, one, GapReason.NOT_AUDIO, "a text")
    await archive.archive(recording)
    day = utc_date(recording.started_at)
    for one in (recording, other, odd):
        archive.put_aside(archive.keys.quarantine("hq", day, one.id, 1, "wav"), b"evidence")
    archive.put_aside(archive.keys.gap("hq", day, odd.id), b"not ours")
    assert (await ask(archive, other)).outcome is Outcome.DEFERRED
    archive.later(31)
    archive.later(1)
    for one, count in ((recording, 4), (other, 2), (odd, 2)):
        answer = await ask(archive, one)
        assert answer.outcome is Outcome.ERASED
        assert answer.batch
        [item] = answer.batch.destroyed
        assert len(item.versions) == count
        assert (item.sha256 is None) is (one is not recording)
        assert archive.of(one) == []
    assert await polled(archive, recording) == (0, 3)


async def test_a_gap_record_without_a_date_is_found(archive: Archive) -> None:
    """It lies under 1970-01-01."""
    await archive.add(2)
    archive.put_aside(archive.keys.gap("hq", utc_date(None), "rec-1"), b"{}")
    archive.later(31)
    assert (await ask(archive)).outcome is Outcome.ERASED
    assert await Index(archive.services, archive.bench.source).held("rec-1", utc_date(None))


async def test_what_lies_under_two_days_is_erased_under_both(archive: Archive) -> None:
    """The worst of what came of it is the answer."""
    [recording] = await archive.add(1)
    day = utc_date(recording.started_at)
    evidence = archive.keys.quarantine("hq", day + timedelta(days=1), "rec-1", 1, "wav")
    archive.put_aside(evidence, b"evidence")
    assert (await ask(archive)).outcome is Outcome.DEFERRED
    archive.later(31)
    answer = await ask(archive)
    assert (answer.outcome, len(answer.certificates)) == (Outcome.ERASED, 2)
    assert not archive.there(recording)


async def test_an_erasure_that_was_killed_is_finished_by_asking_again(archive: Archive) -> None:
    """Also where no expiry run ever comes by; another's certificate is left alone."""
    made = await archive.add(1, 2)
    archive.later(31)

    async def dies(name: str, key: str) -> None:
        if name == "delete_version" and key.endswith(".wav"):
            raise Killed

    for recording in made:
        archive.store.before = dies
        with pytest.raises(Killed):
            await ask(archive, recording)
        assert len(archive.of(recording)) == 1
        assert await polled(archive, recording) == (0, 2)
    archive.store.before = nothing
    answer = await ask(archive, made[0])
    assert (answer.outcome, answer.detail) == (
        Outcome.ERASED,
        f"hq/rec-1 was destroyed, see {answer.certificates[0]}",
    )
    assert not archive.there(made[0])
    assert archive.there(made[1])
    assert sorted(one.state for one in archive.certificates()) == ["begun", "complete"]


async def test_an_erasure_that_was_killed_and_meets_a_surprise_says_so(archive: Archive) -> None:
    """Of a recording that is only a gap record, too; once that is put right, it is finished."""
    recording = archive.bench.vendor.add(1)
    await write_gap(archive.services, archive.bench.desk, recording, GapReason.NOT_AUDIO, "a text")
    archive.later(31)

    async def dies(name: str, key: str) -> None:
        if name == "delete_version":
            raise Killed

    archive.store.before = dies
    with pytest.raises(Killed):
        await ask(archive)
    archive.store.before = nothing
    await archive.flag(recording, on=True)
    with pytest.raises(Surprise, match="no matter says why"):
        await ask(archive)
    assert archive.there(recording)
    await archive.flag(recording, on=False)
    assert (await ask(archive)).outcome is Outcome.ERASED
    assert not archive.there(recording)


async def test_trouble_in_the_last_moment_is_a_refusal_in_words(archive: Archive) -> None:
    """A matter between certificate and deletion; a legal hold that nobody explains."""
    made = await archive.add(1, 2)
    archive.later(31)

    async def places(name: str, key: str) -> None:
        if name == "put" and "/certificates/" in key:
            archive.store.after = nothing
            await archive.hold("acme", made[0])

    archive.store.after = places
    answer = await ask(archive, made[0])
    assert (answer.outcome, answer.detail) == (Outcome.REFUSED, "hq/rec-1 is not erased: held by matter acme")
    assert archive.there(made[0])

    async def flags(name: str, key: str) -> None:
        if name == "put" and "/certificates/" in key:
            archive.store.after = nothing
            await archive.flag(made[1], on=True)

    archive.store.after = flags
    answer = await ask(archive, made[1])
    assert answer.outcome is Outcome.REFUSED
    assert "no matter says why" in answer.detail


async def test_what_is_half_gone_is_told(archive: Archive) -> None:
    """The media came under a hold after the sidecar went."""
    [recording] = await archive.add(1)
    archive.later(31)
    key = next(key for key in archive.of(recording) if key.endswith(".wav"))

    async def places(name: str, asked: str) -> None:
        if (name, asked) == ("delete_version", key):
            archive.store.before = nothing
            await archive.hold("acme", recording, sweep=False)
            await archive.store.set_legal_hold(key, None, on=True)

    archive.store.before = places
    answer = await ask(archive)
    assert answer.outcome is Outcome.REFUSED
    assert answer.detail == "hq/rec-1 is destroyed in part only: held by matter acme"


async def test_an_erased_recording_that_was_archived_once_more_is_erased_once_more(free: Archive) -> None:
    """By the next expiry run: a worker may have been at it in the very moment."""
    [recording] = await free.add(1)
    await ask(free, recording)
    assert await free.archive(recording) is Archived.ARCHIVED
    report = await free.expire()
    assert (report.destroyed, report.sources["hq"].erased) == (1, 1)
    assert not free.there(recording)


async def test_a_request_whose_recording_vanished_is_told(archive: Archive) -> None:
    """Gone, and no certificate says how: somebody else deletes."""
    [recording] = await archive.add(1)
    await ask(archive, recording)
    for key in archive.of(recording):
        del archive.store.versions_of[key]
    archive.later(31)
    report = await archive.expire()
    assert report.errors == ["hq/rec-1 of 2026-03-05 is gone, and no certificate says how; find out who deletes here"]


async def test_a_request_that_cannot_be_read_stops_the_run(archive: Archive) -> None:
    """Whoever asked would wait for ever; what is not ours is passed over."""
    [recording] = await archive.add(1)
    archive.put_aside("v1/erasures/readme.txt")
    key = archive.keys.erasure("hq", utc_date(recording.started_at), "rec-1")
    archive.put_aside(key)
    report = await archive.expire()
    assert report.stopped
    assert f"{key} is no request to erase that can be read" in report.errors[0]


async def test_requests_count_towards_the_limit(archive: Archive) -> None:
    """And the run says that there is more."""
    made = await archive.add(1, 2)
    for recording in made:
        await ask(archive, recording)
    archive.later(31)
    report = await archive.expire(limit=1)
    assert (report.destroyed, report.more, report.limited) == (1, True, True)


async def test_a_recording_that_vanishes_while_it_is_judged_is_asked_for_again(archive: Archive) -> None:
    """An expiry run is at it."""
    [recording] = await archive.add(1)
    archive.later(31)
    keys = archive.of(recording)

    async def vanishes(name: str, key: str) -> None:
        if name == "get" and key.endswith("rec-1.json"):
            for one in keys:
                archive.store.versions_of.pop(one, None)

    archive.store.before = vanishes
    answer = await ask(archive)
    assert (answer.outcome, answer.detail) == (Outcome.MISSING, "hq/rec-1 is being destroyed just now; ask again")


async def test_trouble_with_the_bucket_is_raised(archive: Archive) -> None:
    """The certificate stays begun."""
    await archive.add(1)
    archive.later(31)

    async def fails(name: str, key: str) -> None:
        if name == "delete_version":
            raise StoreUnavailable("503", key)

    archive.store.before = fails
    with pytest.raises(StoreUnavailable):
        await ask(archive)
    assert archive.certificates()[0].state == "begun"


async def test_who_goes_on_with_the_erasure_of_a_gap_knows_the_call_by_its_record(archive: Archive) -> None:
    """A matter about its number was placed since: it is honoured before it is carried through, and named after."""
    recording = archive.bench.vendor.add(1)
    await write_gap(archive.services, archive.bench.desk, recording, GapReason.NOT_AUDIO, "a text")
    archive.later(31)

    async def dies(name: str, key: str) -> None:
        if name == "delete_version":
            raise Killed

    archive.store.before = dies
    with pytest.raises(Killed):
        await ask(archive)
    archive.store.before = nothing
    await archive.hold("smith", number="5550100", sweep=False)
    report = await archive.expire()
    assert report.errors == ["hq/rec-1 is kept: held by matter smith"]
    assert archive.there(recording)


async def test_an_erased_gap_is_not_asked_for_again_by_who_remembers_the_day(free: Archive) -> None:
    """What is held on a day is remembered in a state that whoever erases may not share."""
    recording = free.bench.vendor.add(1)
    await write_gap(free.services, free.bench.desk, recording, GapReason.NOT_AUDIO, "a text")
    assert await polled(free, recording) == (0, 0)
    assert (await ask(free)).outcome is Outcome.ERASED
    assert await polled(free, recording) == (0, 1)


async def test_an_erased_row_without_a_date_does_not_come_back(free: Archive) -> None:
    """Neither as the row that it was, nor as a recording once its start can be read."""
    row = Unreadable("rec-1", "no start", {"id": "rec-1"})
    await write_unreadable(free.services, free.bench.desk, row)
    assert (await ask(free)).outcome is Outcome.ERASED
    free.bench.vendor.unreadable = (row,)
    window = Window(free.clock.now() - timedelta(days=2), free.clock.now())
    found = await discover(free.services, free.bench.desk, window, Report(), 10)
    assert found.unreadable == []
    free.bench.vendor.unreadable = ()
    assert await polled(free, free.bench.vendor.add(1)) == (0, 1)


async def test_many_requests_are_read_in_pieces_and_looked_after(
    free: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What came back goes again, within the limit."""
    monkeypatch.setattr("worker.erase._READ", 2)
    monkeypatch.setattr("worker.expiry._JUDGED", 2)
    made = await free.add(*range(5))
    for recording in made:
        assert (await ask(free, recording)).outcome is Outcome.ERASED
    for recording in made:
        await free.archive(recording)
    report = await free.expire(limit=2)
    assert (report.destroyed, report.limited) == (2, True)
    report = await free.expire()
    assert (report.destroyed, report.more) == (3, False)
    assert not any(free.there(recording) for recording in made)


async def test_looking_after_what_was_erased_keeps_nothing_else_from_being_destroyed(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many there are: what is due goes first, and no turn is asked for because of them."""
    monkeypatch.setattr("worker.expiry._JUDGED", 2)
    made = await archive.add(*range(4))
    archive.later(31)
    for recording in made:
        assert (await ask(archive, recording)).outcome is Outcome.ERASED
    [late] = await archive.add(9, days_ago=1)
    looks: list[str] = []

    async def counts(name: str, key: str) -> None:
        if name == "versions" and "/quarantine/" in key and key.endswith(tuple(r.id for r in made)):
            looks.append(key)

    archive.store.before = counts
    report = await archive.expire(go_on=lambda: not looks)
    assert (report.destroyed, report.more) == (1, False)
    assert not archive.there(late)
    assert len(looks) == 2


@pytest.mark.parametrize("kind", ["archive", "free"])
async def test_the_index_of_its_day_forgets_who_spoke_to_whom(kind: str, request: pytest.FixtureRequest) -> None:
    """In all its versions, and before the certificate is complete; its neighbours stay."""
    archive: Archive = request.getfixturevalue(kind)
    [recording, other] = await archive.add(1, 2)
    await audit(archive.services)
    day = utc_date(recording.started_at)
    key = archive.keys.index("hq", day)
    assert set(await known_rows(archive.services, "hq", day)) == {"rec-1", "rec-2"}
    archive.later(31)
    assert (await ask(archive, recording)).outcome is Outcome.ERASED
    assert set(await known_rows(archive.services, "hq", day)) == {"rec-2"}
    assert len(archive.store.versions_of[key]) == 1
    written = [put for name, put in archive.store.said if name == "put"]
    assert "/certificates/" in written[written.index(key, -3) + 1]
    report = await audit(archive.services)
    assert "gone" not in report.reported
    assert (await ask(archive, other)).outcome is Outcome.ERASED
    assert await known_rows(archive.services, "hq", day) == {}


async def test_ids_that_differ_by_a_number_are_told_apart(archive: Archive) -> None:
    """Evidence has a number after its id, recordings have none: what lies under another day is another's."""
    [recording] = await archive.add(1, id="call")
    [other] = await archive.add(2, id="call.1", days_ago=2)
    archive.later(31)
    answer = await ask(archive, recording)
    assert (answer.outcome, answer.detail) == (Outcome.ERASED, "hq/call is erased")
    assert archive.there(other)
