"""The audit: what is short is put right, what may not be changed is told, and the figures add up."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from config.retention import LockMode, Period, Retention, Rule
from storage.errors import ObjectMissing, StoreRefused, StoreUnavailable
from storage.keys import rid, utc_date
from storage.lock import Lock
from storage.retention import record_lock
from storage.sidecar import GapReason
from tests.support.bench import NOW
from tests.support.expiring import POLICY, Archive, end_of
from worker.audit import audit
from worker.drift import Audited
from worker.entries import read_day
from worker.erase import erase
from worker.gaps import write_gap
from worker.indexing import known_rows
from worker.model import Recording

DAY = NOW.date()
LONGER = Retention(LockMode.GOVERNANCE, default=Period(days=60))


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    """Return an archive whose policy keeps all for thirty days."""
    return Archive(tmp_path)


def change(archive: Archive, key: str, **fields: Any) -> None:
    """Change the newest version behind callvault's back."""
    archive.store.versions_of[key][-1] = replace(archive.store.versions_of[key][-1], **fields)


def keys_of(archive: Archive, recording: Recording) -> tuple[str, str]:
    """Return the keys of media and sidecar."""
    sidecar, media = archive.of(recording)
    return media, sidecar


def locked(archive: Archive, key: str) -> Lock | None:
    """Return the lock of the newest version."""
    return archive.store.versions_of[key][-1].lock


def kinds(report: Audited) -> dict[str, int]:
    """Return what was reported; what is told one by one agrees."""
    told = [finding["kind"] for finding in report.findings]
    assert {kind: told.count(kind) for kind in told} == report.reported
    return report.reported


async def test_what_is_well_stays_as_it_is(archive: Archive) -> None:
    """All is counted, nothing is written but the index; a second audit writes nothing at all."""
    await archive.add(1, 2)
    gap = archive.bench.vendor.add(3)
    await write_gap(archive.services, archive.bench.desk, gap, GapReason.EMPTY, "empty")
    await archive.hold("acme", sweep=False, source="nobody")
    before = {key: list(rows) for key, rows in archive.store.versions_of.items()}
    report = await audit(archive.services)
    assert (report.objects, report.versions, report.well, report.extended, report.held) == (6, 6, 6, 0, 0)
    assert kinds(report) == {}
    assert report.done
    index = archive.store.versions_of.pop(archive.keys.index("hq", DAY))
    assert archive.store.versions_of == before
    archive.store.versions_of[archive.keys.index("hq", DAY)] = index
    archive.store.said.clear()
    await audit(archive.services)
    assert "put" not in {name for name, _ in archive.store.said}


async def test_a_longer_policy_extends_locks(archive: Archive) -> None:
    """Of media, sidecars and records, each to its own date; the index knows the new ones."""
    (recording,) = await archive.add(1)
    gap = archive.bench.vendor.add(2)
    await write_gap(archive.services, archive.bench.desk, gap, GapReason.EMPTY, "empty")
    archive.policy(LONGER)
    report = await audit(archive.services)
    assert (report.versions, report.well, report.extended, kinds(report)) == (3, 0, 3, {})
    for key in keys_of(archive, recording):
        assert locked(archive, key) == Lock(LockMode.GOVERNANCE, end_of(recording, 60))
    (gap_key,) = archive.of(gap)
    assert locked(archive, gap_key) == Lock(LockMode.GOVERNANCE, end_of(gap, 60))
    row = (await known_rows(archive.services, "hq", DAY))[rid(recording.id)]
    assert row.entry.locked == end_of(recording, 60)
    again = await audit(archive.services)
    assert (again.well, again.extended) == (3, 0)


async def test_a_gap_record_is_locked_no_longer_than_its_call_is_kept(archive: Archive) -> None:
    """A rule that keeps other calls longer would have it outlast its recording, which then could not be destroyed."""
    gap = archive.bench.vendor.add(2)
    await write_gap(archive.services, archive.bench.desk, gap, GapReason.EMPTY, "empty")
    archive.policy(replace(archive.services.settings.retention, rules=(Rule("x", {"queue": "x"}, Period(months=120)),)))
    report = await audit(archive.services)
    assert (report.well, report.extended) == (1, 0)
    assert locked(archive, archive.of(gap)[0]) == Lock(LockMode.GOVERNANCE, end_of(gap))


async def test_evidence_is_locked_and_held_as_its_call(archive: Archive) -> None:
    """Whose it is says the gap record, or the sidecar where it was archived after all; of nobody's nothing is asked."""
    (recording,) = await archive.add(1)
    gap = archive.bench.vendor.add(2)
    await write_gap(archive.services, archive.bench.desk, gap, GapReason.HASH_MISMATCH, "differs")
    keys = [archive.keys.quarantine("hq", DAY, name, 1, "wav") for name in (recording.id, gap.id, "nobody")]
    for key in keys:
        archive.put_aside(key, b"RIFF")
    archive.put_aside(archive.keys.partition("quarantine", "hq", DAY) + "notes", b"mine")
    await archive.hold("acme", gap, sweep=False)
    report = await audit(archive.services)
    assert [locked(archive, key) for key in keys] == [
        Lock(LockMode.GOVERNANCE, end_of(recording)),
        Lock(LockMode.GOVERNANCE, end_of(gap)),
        None,
    ]
    assert [archive.store.versions_of[key][-1].legal_hold for key in keys] == [False, True, False]
    assert kinds(report) == {}


async def test_a_request_to_erase_is_locked_like_all_that_is_on_record(archive: Archive) -> None:
    """It is the proof that somebody asked, until there is a certificate."""
    (recording,) = await archive.add(1)
    await erase(archive.services, "hq", recording.id, reason="asked", by="officer")
    key = archive.keys.erasure("hq", DAY, rid(recording.id))
    before = locked(archive, key)
    change(archive, key, lock=None)
    report = await audit(archive.services)
    after = locked(archive, key)
    assert (report.well, report.extended) == (2, 1)
    assert before
    assert after
    assert after.until >= before.until - timedelta(days=1)  # dated by the store's clock, which may differ


async def test_what_somebody_shortened_is_extended_and_told(archive: Archive) -> None:
    """A lock that is gone counts as one shortened; which key and version is said."""
    first, second = await archive.add(1, 2)
    media, _ = keys_of(archive, first)
    _, sidecar = keys_of(archive, second)
    change(archive, media, lock=Lock(LockMode.GOVERNANCE, NOW + timedelta(days=2)))
    change(archive, sidecar, lock=None)
    report = await audit(archive.services)
    assert (report.well, report.extended, kinds(report)) == (2, 2, {"shortened": 2})
    assert {finding["key"] for finding in report.findings} == {media, sidecar}
    assert "find out who" in report.findings[0]["detail"]
    assert report.findings[0]["version"] == archive.store.versions_of[media][-1].version_id
    assert locked(archive, media) == Lock(LockMode.GOVERNANCE, end_of(first))
    assert locked(archive, sidecar) == Lock(LockMode.GOVERNANCE, end_of(second))


async def test_a_weaker_mode_is_told_and_stays(tmp_path: Path) -> None:
    """To change it takes a right that callvault must not have; a stronger one than promised is no finding."""
    archive = Archive(tmp_path, Retention(LockMode.COMPLIANCE, default=Period(days=30)))
    (recording,) = await archive.add(1)
    media, _ = keys_of(archive, recording)
    weak = Lock(LockMode.GOVERNANCE, end_of(recording))
    change(archive, media, lock=weak)
    report = await audit(archive.services)
    assert (report.well, kinds(report)) == (1, {"weaker_mode": 1})
    assert locked(archive, media) == weak


async def test_a_promise_that_is_over_needs_no_lock(archive: Archive) -> None:
    """What has ended, or ends in a moment, is as it should be."""
    (recording,) = await archive.add(1)
    change(archive, keys_of(archive, recording)[0], lock=None)
    archive.later(40)
    report = await audit(archive.services)
    assert (report.well, kinds(report)) == (2, {})


async def test_without_policy_the_promise_is_what_counts(archive: Archive) -> None:
    """What was promised is put right by the sidecar's word; recordings of before any policy are left alone."""
    (recording,) = await archive.add(1)
    archive.policy(Retention())
    await archive.add(2)
    media, _ = keys_of(archive, recording)
    change(archive, media, lock=None)
    report = await audit(archive.services)
    assert (report.well, report.extended, kinds(report)) == (3, 1, {"shortened": 1})
    assert locked(archive, media) == Lock(LockMode.GOVERNANCE, end_of(recording))


async def test_what_was_archived_without_policy_is_locked_by_one(tmp_path: Path) -> None:
    """The first policy counts for what is there already."""
    archive = Archive(tmp_path, Retention())
    archive.store._object_lock = archive.store._versioned = True
    (recording,) = await archive.add(1)
    archive.policy(POLICY)
    report = await audit(archive.services)
    assert (report.extended, kinds(report)) == (2, {})
    assert locked(archive, keys_of(archive, recording)[1]) == Lock(LockMode.GOVERNANCE, end_of(recording))


async def test_what_the_store_refuses_is_told_and_the_rest_is_done(archive: Archive, tmp_path: Path) -> None:
    """A version that cannot be extended, or held, does not keep the others from being looked at."""
    recording, _ = await archive.add(1, 2)
    media, _ = keys_of(archive, recording)
    await archive.hold("acme", recording, sweep=False)
    archive.policy(LONGER)
    extend, hold = archive.store.extend_lock, archive.store.set_legal_hold

    async def no_extending(key: str, version_id: str | None, lock: Lock) -> Lock:
        if key == media:
            raise StoreRefused("no right to retain", key)
        return await extend(key, version_id, lock)

    async def no_holding(key: str, version_id: str | None, *, on: bool) -> None:
        if key == media:
            raise StoreRefused("no right to hold", key)
        await hold(key, version_id, on=on)

    archive.store.extend_lock = no_extending  # type: ignore[method-assign]
    archive.store.set_legal_hold = no_holding  # type: ignore[method-assign]
    report = await audit(archive.services)
    assert (report.extended, report.held, kinds(report)) == (4, 1, {"refused": 2})  # of 5: the matter is a version too
    assert {finding["detail"] for finding in report.findings} == {"no right to retain", "no right to hold"}


async def test_a_store_that_does_not_answer_ends_it(archive: Archive) -> None:
    """What was done is done; the caller hears of it."""
    await archive.add(1)

    async def away(name: str, key: str) -> None:
        if name == "protection":
            raise StoreUnavailable("away")

    archive.store.before = away
    with pytest.raises(StoreUnavailable):
        await audit(archive.services)


async def test_what_is_destroyed_meanwhile_is_passed_over(archive: Archive) -> None:
    """Between the listing and the look, sidecar or version may go."""
    await archive.add(1, 2)

    async def gone(name: str, key: str) -> None:
        if (name, key.rpartition("/")[2]) in {("get", "rec-1.json"), ("protection", "rec-2.wav")}:
            raise ObjectMissing("gone", key)

    archive.store.before = gone
    assert kinds(await audit(archive.services)) == {}


async def test_missing_holds_are_set(archive: Archive) -> None:
    """On media, sidecar and gap record of what an active matter covers; a released one covers nothing."""
    recording, other = await archive.add(1, 2)
    gap = archive.bench.vendor.add(3)
    await write_gap(archive.services, archive.bench.desk, gap, GapReason.EMPTY, "empty")
    await archive.hold("acme", recording, gap, sweep=False)
    await archive.release(await archive.hold("old", other, sweep=False))
    archive.clock.advance(10)
    report = await audit(archive.services)
    assert (report.held, kinds(report)) == (3, {})
    held = {key for key, rows in archive.store.versions_of.items() if rows[-1].legal_hold}
    assert held == {*archive.of(recording), *archive.of(gap)}


async def test_a_hold_without_matter_is_told_and_stays(archive: Archive) -> None:
    """Somebody may have a reason; callvault lifts only what it set."""
    (recording,) = await archive.add(1)
    await archive.flag(recording, on=True)
    report = await audit(archive.services)
    assert (report.well, kinds(report)) == (0, {"hold_without_matter": 2})
    assert all(archive.store.versions_of[key][-1].legal_hold for key in archive.of(recording))


async def test_a_matter_placed_or_released_meanwhile_is_heeded(archive: Archive) -> None:
    """A hold of a moment ago is no stray; what was set for a matter released in between is lifted again."""
    recording, other = await archive.add(1, 2)
    changes: list[Any] = [partial(archive.hold, "fresh", recording)]
    archive.store.before = after_the_matters(archive, changes)
    assert kinds(await audit(archive.services)) == {}
    hold = await archive.hold("brief", other, sweep=False)
    changes.append(partial(archive.release, hold))
    archive.clock.advance(10)
    report = await audit(archive.services)
    assert (report.held, kinds(report)) == (2, {})
    assert not any(archive.store.versions_of[key][-1].legal_hold for key in archive.of(other))


def after_the_matters(archive: Archive, changes: list[Any]) -> Any:
    """Return what makes a change once the matters were read and a day is looked at."""

    async def meddle(name: str, key: str) -> None:
        if (name, key[:13]) == ("versions", "v1/recordings") and changes:
            await changes.pop()()

    return meddle


async def test_what_does_not_fit_together_is_told(archive: Archive) -> None:
    """Hidden, missing, unreadable, foreign, of other bytes, written twice: each has its kind, nothing is deleted."""
    names = ("hidden", "no_media", "unreadable", "other_bytes", "extra_version", "moved", "fine")
    made = {name: (await archive.add(n, id=name))[0] for n, name in enumerate(names)}
    prefix = f"v1/recordings/source=hq/date={DAY}/"
    del archive.store.versions_of[f"{prefix}no_media.wav"]
    change(archive, f"{prefix}unreadable.json", body=b"<html>")
    archive.put_aside(f"{prefix}other_bytes.wav", b"RIFF")
    archive.put_aside(f"{prefix}extra_version.json", archive.store.versions_of[f"{prefix}extra_version.json"][0].body)
    archive.put_aside(f"{prefix}notes", b"mine")
    archive.put_aside(f"{prefix}old.wav", b"RIFF")
    archive.put_aside(f"{prefix}new.wav", b"RIFF")
    change(archive, f"{prefix}old.wav", modified=NOW - timedelta(days=2))
    archive.hide(f"{prefix}hidden.wav")
    gap = archive.bench.vendor.add(20)
    await write_gap(archive.services, archive.bench.desk, gap, GapReason.EMPTY, "empty")
    change(archive, archive.of(gap)[0], body=b"?")
    there = set(archive.store.versions_of)
    report = await audit(archive.services)
    assert {(finding["kind"], finding["key"].rpartition("/")[2]) for finding in report.findings} == {
        ("hidden", "hidden.wav"),
        ("no_media", "no_media.json"),
        ("unreadable", "unreadable.json"),
        ("unreadable", f"{gap.id}.json"),
        ("other_bytes", "other_bytes.wav"),
        ("extra_version", "extra_version.json"),
        ("foreign", "notes"),
        ("no_sidecar", "old.wav"),
        ("shortened", "other_bytes.wav"),  # written behind callvault's back, so without a lock
        ("shortened", "extra_version.json"),
    }
    assert set(archive.store.versions_of) == there | {archive.keys.index("hq", DAY)}
    assert made
    (extra,) = (finding for finding in report.findings if finding["kind"] == "extra_version")
    assert extra["version"] == archive.store.versions_of[extra["key"]][-1].version_id  # not the first, callvault's own


async def test_media_that_lie_elsewhere_are_looked_for_there(archive: Archive) -> None:
    """A sidecar may name any key: what is there is not missing."""
    (recording,) = await archive.add(1)
    media, sidecar = keys_of(archive, recording)
    elsewhere = media.replace("v1/recordings", "moved")
    change(
        archive, sidecar, body=archive.store.versions_of[sidecar][-1].body.replace(media.encode(), elsewhere.encode())
    )
    assert kinds(await audit(archive.services)) == {"no_media": 1}
    archive.store.versions_of[elsewhere] = archive.store.versions_of.pop(media)
    assert kinds(await audit(archive.services)) == {}


async def test_what_hides_nothing_is_no_finding(archive: Archive) -> None:
    """A delete marker that is all there is of a key, or that is not the newest version."""
    (recording,) = await archive.add(1)
    media, sidecar = keys_of(archive, recording)
    marker = replace(archive.store.versions_of[media][0], marker=True, body=b"", version_id="m", lock=None)
    archive.store.versions_of[f"{media}.old"] = [marker]
    archive.store.versions_of[sidecar].insert(0, marker)
    assert kinds(await audit(archive.services)) == {}


async def test_a_hidden_sidecar_is_not_taken_for_gone(archive: Archive) -> None:
    """It is told as hidden, once; its media are no orphans."""
    (recording,) = await archive.add(1)
    await audit(archive.services)
    media, sidecar = keys_of(archive, recording)
    archive.hide(sidecar)
    change(archive, media, modified=NOW - timedelta(days=2))
    assert kinds(await audit(archive.services)) == {"hidden": 1}


async def test_an_index_that_still_knows_what_was_destroyed_is_put_right(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another worker wrote it anew meanwhile: the note of the destruction says that nothing is amiss."""

    async def leaves(*_: object) -> None:
        pass

    [recording] = await archive.add(1)
    await audit(archive.services)
    monkeypatch.setattr("worker.destroy.drop_rows", leaves)
    archive.later(31)
    assert (await archive.expire()).destroyed == 1
    day = utc_date(recording.started_at)
    assert set(await known_rows(archive.services, "hq", day)) == {"rec-1"}
    report = await audit(archive.services)
    assert kinds(report) == {}
    assert await known_rows(archive.services, "hq", day) == {}


async def test_what_is_gone_without_certificate_is_told_until_it_is_known(archive: Archive) -> None:
    """Also where the whole day is gone; destroyed by the book it is no finding."""
    (due,) = await archive.add(1)
    archive.later(31)
    (stolen,) = await archive.add(2, days_ago=-31)
    await audit(archive.services)
    await archive.expire()
    for key in archive.of(stolen):
        del archive.store.versions_of[key]
    for _ in range(2):
        report = await audit(archive.services)
        assert kinds(report) == {"gone": 1}
        assert f"hq/{stolen.id}" in report.findings[0]["detail"]
    assert not archive.there(due)


async def test_certificates_and_notes_are_looked_at(archive: Archive) -> None:
    """A lock of theirs that is gone is given again, to the longest promise from when they were written."""
    await archive.add(1)
    archive.later(31)
    await archive.expire()
    written = [key for key in archive.store.versions_of if key.startswith(("v1/certificates", "v1/destroyed"))]
    for key in written:
        archive.store.versions_of[key] = [replace(row, lock=None) for row in archive.store.versions_of[key]]
    report = await audit(archive.services)
    assert report.extended == sum(len(archive.store.versions_of[key]) for key in written) == 3
    expected = record_lock(POLICY, archive.clock.now())
    assert expected
    for key in written:
        found = locked(archive, key)
        assert found
        assert timedelta(0) <= expected.until - found.until <= timedelta(days=1)


async def test_sources_of_old_configurations_are_looked_at(archive: Archive) -> None:
    """The bucket says what there is."""
    (recording,) = await archive.add(1)
    for key in archive.of(recording):
        row = archive.store.versions_of.pop(key)[0]
        body = row.body.replace(b'"hq"', b'"old"').replace(b"source=hq", b"source=old")
        archive.store.versions_of[key.replace("source=hq", "source=old")] = [replace(row, body=body, lock=None)]
    report = await audit(archive.services)
    assert (report.versions, report.extended) == (2, 2)


async def test_a_foreign_index_is_replaced(archive: Archive) -> None:
    """By one that says what the sidecars say."""
    await archive.add(1)
    archive.put_aside(archive.keys.index("hq", DAY), b"junk")
    await audit(archive.services)
    rows = (await read_day(archive.services, "hq", DAY)).rows
    assert len(rows) == 1
    known = list((await known_rows(archive.services, "hq", DAY)).values())
    assert [replace(row.entry, locked=None) for row in known] == [row.entry for row in rows]


async def test_an_audit_goes_on_where_it_was(archive: Archive) -> None:
    """Cut into turns of one day each, it sees everything once, whatever comes and goes in between."""
    for days in range(4):
        await archive.add(days, days_ago=days)
    report, turns = None, 0
    while report is None or not report.done:
        turns += 1
        assert turns < 9
        looks = iter((True, False))
        report = await audit(archive.services, report, go_on=lambda looks=looks: next(looks))  # type: ignore[misc]
        for key in [key for key in archive.store.versions_of if f"date={DAY - timedelta(days=3)}" in key]:
            del archive.store.versions_of[key]  # the day that was looked at first is gone
    assert (turns, report.objects, report.versions) == (5, 8, 8)


async def test_of_many_findings_some_are_told(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    """All are counted."""
    monkeypatch.setattr("worker.drift._TOLD", 3)
    for recording in await archive.add(1, 2):
        await archive.flag(recording, on=True)
    report = await audit(archive.services)
    assert (report.reported, len(report.findings)) == ({"hold_without_matter": 4}, 3)


async def test_a_rule_of_today_counts_for_what_is_there(archive: Archive) -> None:
    """The longest of promise and policy is what a lock has to reach; a shorter policy changes nothing."""
    recording, other = await archive.add(1), await archive.add(2)
    rules = (Rule("one", {"number": "5550100"}, Period(days=10)),)
    archive.policy(Retention(LockMode.GOVERNANCE, default=Period(days=90), rules=rules))
    report = await audit(archive.services)
    assert (report.well, report.extended) == (4, 0)
    assert recording
    assert other
    archive.policy(Retention(LockMode.GOVERNANCE, default=Period(days=10), rules=(replace(rules[0], keep=Period(1)),)))
    report = await audit(archive.services)
    assert (report.well, report.extended) == (0, 4)
    assert locked(archive, keys_of(archive, recording[0])[0]) == Lock(
        LockMode.GOVERNANCE, datetime(2026, 4, 5, 11, 0, 10, tzinfo=UTC)
    )
