"""One recording, from listed to settled. The phone system is scripted, the archive is in memory."""

import asyncio
import hashlib
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from storage.errors import StoreUnavailable
from storage.keys import rid
from storage.sidecar import GapReason, Verdict
from storage.state import Attempt, StateUnavailable
from tests.support.audio import header_only_wav, mp3, wav
from tests.support.bench import NOW, Bench, FakeStream, make_bench
from worker.errors import (
    BadAnswer,
    GiveUp,
    MediaNotFound,
    NotYet,
    Retry,
    StopSource,
    Truncated,
    WaitUntil,
)
from worker.model import ClaimedHash, Readiness, Recording
from worker.outcome import Fate, Outcome
from worker.pipeline import MAX_CRASHES, archive_one, put_off, settle_gap

FIVE_MIB = 5 * 1024 * 1024


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """Return a workbench with one source, hq."""
    return make_bench(tmp_path, part_bytes=FIVE_MIB)


async def archive(bench: Bench, recording: Recording) -> Outcome:
    """Archive with the bench's parts."""
    return await archive_one(bench.services, bench.desk, recording, NOW)


async def test_media_and_sidecar_agree_and_say_what_the_call_was(bench: Bench) -> None:
    """A recording ends as its exact bytes and a sidecar with key, size, SHA-256, type and the vendor's record."""
    recording = bench.vendor.add(1)
    outcome = await archive(bench, recording)
    sidecar = await bench.sidecar(recording)
    body = bench.vendor.bodies[recording.id]
    assert outcome == Outcome(recording.id, Fate.ARCHIVED, bytes=len(body))
    assert sidecar.media.key == "v1/recordings/source=hq/date=2026-03-05/rec-1.wav"
    assert await bench.store.get(sidecar.media.key, max_bytes=10**7) == body
    assert sidecar.media.sha256 == hashlib.sha256(body).hexdigest()
    assert (sidecar.media.bytes, sidecar.media.content_type) == (len(body), "audio/wav")
    assert sidecar.call == recording.call
    assert sidecar.vendor_record == recording.record
    assert sidecar.media.vendor_hash.verdict is Verdict.ABSENT
    assert sidecar.media.warnings == ()
    info = await bench.store.head(sidecar.media.key)
    assert info is not None
    assert info.metadata["sha256"] == sidecar.media.sha256


async def test_a_large_recording_goes_up_in_parts(bench: Bench) -> None:
    """Above one part nothing is buffered whole, and the bytes come out the same."""
    recording = bench.vendor.add(1, body=wav(800, seed=3))
    assert (await archive(bench, recording)).fate is Fate.ARCHIVED
    sidecar = await bench.sidecar(recording)
    assert await bench.store.get(sidecar.media.key, max_bytes=10**8) == bench.vendor.bodies[recording.id]
    assert sidecar.media.sha256 == hashlib.sha256(bench.vendor.bodies[recording.id]).hexdigest()


@pytest.mark.parametrize("size", [FIVE_MIB - 1, FIVE_MIB, FIVE_MIB + 1, 2 * FIVE_MIB, 2 * FIVE_MIB + 1])
async def test_no_byte_is_lost_at_the_edge_of_a_part(bench: Bench, size: int) -> None:
    """Bodies of about a part's size are archived whole."""
    recording = bench.vendor.add(1, body=(b"\x00\x01" * size)[:size])
    assert (await archive(bench, recording)).bytes == size
    sidecar = await bench.sidecar(recording)
    assert await bench.store.get(sidecar.media.key, max_bytes=10**8) == bench.vendor.bodies[recording.id]


async def test_archiving_twice_changes_nothing(bench: Bench) -> None:
    """The second time is told from the first, and no object is written again."""
    recording = bench.vendor.add(1)
    await archive(bench, recording)
    before = {key: len(versions) for key, versions in bench.store.versions_of.items()}
    bench.clock.advance(5)
    assert (await archive(bench, recording)).fate is Fate.HELD
    assert {key: len(versions) for key, versions in bench.store.versions_of.items()} == before


@pytest.mark.parametrize("large", [False, True])
async def test_media_without_sidecar_is_adopted(bench: Bench, large: bool) -> None:
    """A worker that died between the two writes costs nothing: the same bytes are taken over."""
    recording = bench.vendor.add(1, body=wav(800 if large else 1))
    await archive(bench, recording)
    sidecar_key = bench.keys.sidecar("hq", recording.started_at.date(), "rec-1")
    del bench.store.versions_of[sidecar_key]
    assert (await archive(bench, recording)).fate is Fate.ARCHIVED
    assert (await bench.sidecar(recording)).media.bytes == len(bench.vendor.bodies[recording.id])


@pytest.mark.parametrize("large", [False, True])
async def test_other_bytes_under_the_same_id_are_an_incident(bench: Bench, large: bool) -> None:
    """They never replace what is there: they go to quarantine, and the gap says conflict."""
    recording = bench.vendor.add(1, body=wav(800 if large else 1, seed=1))
    await archive(bench, recording)
    first = await bench.sidecar(recording)
    del bench.store.versions_of[bench.keys.sidecar("hq", recording.started_at.date(), "rec-1")]
    bench.vendor.bodies[recording.id] = wav(800 if large else 1, seed=2)
    outcome = await archive(bench, recording)
    assert (outcome.fate, outcome.reason) == (Fate.GAP, GapReason.CONFLICT)
    kept = "v1/quarantine/source=hq/date=2026-03-05/rec-1.1.wav"
    assert await bench.store.get(kept, max_bytes=10**8) == bench.vendor.bodies[recording.id]
    held = await bench.store.get(first.media.key, max_bytes=10**8)
    assert hashlib.sha256(held).hexdigest() == first.media.sha256
    assert bench.store._uploads == {}


async def test_bytes_of_another_length_are_an_incident_too(bench: Bench) -> None:
    """A length that differs is told without reading what is there."""
    recording = bench.vendor.add(1)
    await archive(bench, recording)
    del bench.store.versions_of[bench.keys.sidecar("hq", recording.started_at.date(), "rec-1")]
    bench.vendor.bodies[recording.id] = wav(2)
    assert (await archive(bench, recording)).reason is GapReason.CONFLICT


async def test_a_sidecar_of_other_bytes_is_an_incident(bench: Bench) -> None:
    """Where another worker committed other bytes first, its commit stands and ours goes to quarantine."""
    recording = bench.vendor.add(1)
    await archive(bench, recording)
    bench.vendor.bodies[recording.id] = mp3(seed=5)  # another type, so the media key is free
    outcome = await archive(bench, recording)
    assert (outcome.fate, outcome.reason) == (Fate.GAP, GapReason.CONFLICT)
    assert (await bench.sidecar(recording)).media.content_type == "audio/wav"


@pytest.mark.parametrize("large", [False, True])
async def test_a_hash_that_differs_twice_goes_to_quarantine(bench: Bench, large: bool) -> None:
    """Downloaded once more, then kept as evidence; nothing of it is visible under recordings."""
    claimed = ClaimedHash("SHA256", "0" * 64)
    recording = bench.vendor.add(1, body=wav(800 if large else 1), claimed_hash=claimed)
    outcome = await archive(bench, recording)
    assert (outcome.fate, outcome.reason) == (Fate.GAP, GapReason.HASH_MISMATCH)
    assert bench.vendor.opened == ["rec-1", "rec-1"]
    assert await bench.everything() == ["v1/quarantine/source=hq/date=2026-03-05/rec-1.1.wav"]
    assert "rec-1.1.wav" in outcome.detail
    again = await archive(bench, recording)
    assert "rec-1.2.wav" in again.detail
    assert bench.store._uploads == {}


async def test_a_hash_that_differs_once_was_damage_on_the_way(bench: Bench) -> None:
    """The second download agrees, and is archived with verdict match."""
    body = wav(1, seed=1)
    recording = bench.vendor.add(1, body=body, claimed_hash=ClaimedHash("SHA256", hashlib.sha256(body).hexdigest()))
    bench.vendor.script[recording.id] = [FakeStream(wav(1, seed=2))]
    assert (await archive(bench, recording)).fate is Fate.ARCHIVED
    assert (await bench.sidecar(recording)).media.vendor_hash.verdict is Verdict.MATCH


async def test_a_large_recording_whose_second_download_agrees_leaves_no_twin(bench: Bench) -> None:
    """The quarantine copy that went up beside it is dropped."""
    body = wav(800, seed=1)
    recording = bench.vendor.add(1, body=body, claimed_hash=ClaimedHash("SHA256", hashlib.sha256(body).hexdigest()))
    bench.vendor.script[recording.id] = [FakeStream(wav(800, seed=2))]
    assert (await archive(bench, recording)).fate is Fate.ARCHIVED
    assert bench.store._uploads == {}
    assert all("quarantine" not in key for key in await bench.everything())


async def test_a_site_may_choose_to_be_warned_only(bench: Bench) -> None:
    """With on_hash_mismatch = warn the recording is archived, verdict differs, with a warning."""
    options = bench.source.options.model_copy(update={"on_hash_mismatch": "warn"})
    bench.change(options=options)
    recording = bench.vendor.add(1, claimed_hash=ClaimedHash("SHA256", "0" * 64))
    assert (await archive(bench, recording)).fate is Fate.ARCHIVED
    media = (await bench.sidecar(recording)).media
    assert media.vendor_hash.verdict is Verdict.DIFFERS
    assert "differs" in media.warnings[0]


@pytest.mark.parametrize(
    ("more", "body", "warning"),
    [
        ({"claimed_hash": ClaimedHash("SHA256", "?")}, wav(), "unknown form"),
        ({"expected_bytes": 7}, wav(), "7 bytes"),
        ({}, b"\x00\x01\x02" * 99, "no audio format"),
        ({}, header_only_wav(), "only a header"),
        ({}, wav(1)[:-500], "announces"),
        ({"notes": ("the time is ambiguous",)}, wav(), "ambiguous"),
    ],
)
async def test_what_is_odd_but_whole_is_archived_with_a_warning(
    bench: Bench, more: dict[str, Any], body: bytes, warning: str
) -> None:
    """Oddities are written beside the recording, they do not keep it out of the archive."""
    recording = bench.vendor.add(1, body=body, **more)
    assert (await archive(bench, recording)).fate is Fate.ARCHIVED
    warnings = (await bench.sidecar(recording)).media.warnings
    assert len(warnings) == 1
    assert warning in warnings[0]


@pytest.mark.parametrize(
    ("body", "reason"),
    [(b"<html>Please sign in</html>", GapReason.NOT_AUDIO), (b"", GapReason.EMPTY)],
)
async def test_a_body_that_is_no_audio_is_never_stored(bench: Bench, body: bytes, reason: GapReason) -> None:
    """It is tried three times, then it is a gap with its reason; nothing reaches the bucket."""
    recording = bench.vendor.add(1, body=body)
    outcome = await archive(bench, recording)
    assert (outcome.fate, outcome.reason) == (Fate.GAP, reason)
    assert len(bench.vendor.opened) == 3
    assert await bench.everything() == []


async def test_a_passing_error_document_costs_one_more_try(bench: Bench) -> None:
    """A login page once, audio the second time: archived."""
    recording = bench.vendor.add(1)
    bench.vendor.script[recording.id] = [FakeStream(b"<html>")]
    assert (await archive(bench, recording)).fate is Fate.ARCHIVED


@pytest.mark.parametrize("declared", [True, False])
async def test_what_is_too_large_is_refused(bench: Bench, declared: bool) -> None:
    """By its announced length before a byte is read, or as soon as more comes than is allowed."""
    bench.change(max_recording_bytes=1000)
    recording = bench.vendor.add(1)
    stream = FakeStream(wav(1), declared_length=8044 if declared else None)
    bench.vendor.script[recording.id] = [stream]
    outcome = await archive(bench, recording)
    assert (outcome.fate, outcome.reason) == (Fate.GAP, GapReason.TOO_LARGE)
    assert stream.closed
    assert await bench.everything() == []


@pytest.mark.parametrize("large", [False, True])
async def test_truncated_bytes_are_never_visible(bench: Bench, large: bool) -> None:
    """Cut each time, the recording stays pending; bucket and uploads are empty."""
    body = wav(800 if large else 1)
    recording = bench.vendor.add(1, body=body)
    cut = [FakeStream(body, fails_after=len(body) // 2, error=Truncated("cut")) for _ in range(3)]
    bench.vendor.script[recording.id] = list(cut)
    outcome = await archive(bench, recording)
    assert (outcome.fate, outcome.failed) == (Fate.PENDING, True)
    assert await bench.everything() == []
    assert bench.store._uploads == {}
    assert all(stream.closed for stream in cut)


async def test_an_unframed_body_needs_a_second_proof(bench: Bench) -> None:
    """Without length or end mark, two equal downloads, the vendor's hash, its size or the WAV header must vouch."""
    body = bytes(range(256)) * 8
    recording = bench.vendor.add(1, body=body)
    bench.vendor.script[recording.id] = [FakeStream(body[:900], framed=False), FakeStream(body, framed=False),
                                         FakeStream(body, framed=False)]  # fmt: skip
    assert (await archive(bench, recording)).fate is Fate.ARCHIVED
    sidecar = await bench.sidecar(recording)
    assert sidecar.media.bytes == len(body)
    assert "two downloads agreed" in sidecar.media.warnings[-1]


@pytest.mark.parametrize("proof", ["hash", "size", "riff"])
async def test_an_unframed_body_with_a_proof_is_downloaded_once(bench: Bench, proof: str) -> None:
    """The vendor's hash, the vendor's size or the WAV header prove that nothing is missing."""
    body = wav(1) if proof == "riff" else bytes(range(256)) * 8
    more: dict[str, Any] = {
        "hash": {"claimed_hash": ClaimedHash("SHA256", hashlib.sha256(body).hexdigest())},
        "size": {"expected_bytes": len(body)},
        "riff": {},
    }[proof]
    recording = bench.vendor.add(1, body=body, **more)
    bench.vendor.script[recording.id] = [FakeStream(body, framed=False)]
    assert (await archive(bench, recording)).fate is Fate.ARCHIVED
    assert len(bench.vendor.opened) == 1


@pytest.mark.parametrize("knows", ["riff", "size"])
async def test_an_unframed_body_cut_twice_at_the_same_place_stays_out(bench: Bench, knows: str) -> None:
    """Two equal downloads prove nothing where header or phone system announce more; whole, it is archived."""
    body = wav(1) if knows == "riff" else bytes(range(256)) * 8
    recording = bench.vendor.add(1, body=body, expected_bytes=len(body) if knows == "size" else None)
    bench.vendor.script[recording.id] = [FakeStream(body[:900], framed=False) for _ in range(3)]
    assert (await archive(bench, recording)).fate is Fate.PENDING
    assert await bench.everything() == []
    assert (await archive(bench, recording)).fate is Fate.ARCHIVED
    assert (await bench.sidecar(recording)).media.bytes == len(body)


async def test_unframed_bodies_that_never_agree_stay_out(bench: Bench) -> None:
    """Three different bodies without a length: pending, nothing visible."""
    recording = bench.vendor.add(1)
    bench.vendor.script[recording.id] = [FakeStream(bytes(range(9, 9 + n)) * 9, framed=False) for n in (30, 40, 50)]
    assert (await archive(bench, recording)).fate is Fate.PENDING
    assert await bench.everything() == []


async def test_a_body_that_came_compressed_is_said_to_be(bench: Bench) -> None:
    """The sidecar tells that the phone system compressed it on the way."""
    recording = bench.vendor.add(1)
    bench.vendor.script[recording.id] = [FakeStream(wav(1), compressed=True)]
    await archive(bench, recording)
    assert "compressed" in (await bench.sidecar(recording)).media.warnings[0]


@pytest.mark.parametrize(
    ("error", "fate", "reason"),
    [
        (NotYet("still saving"), Fate.PENDING, GapReason.GAVE_UP),
        (GiveUp("no", GapReason.FORBIDDEN), Fate.GAP, GapReason.FORBIDDEN),
        (MediaNotFound("gone"), Fate.GAP, GapReason.MEDIA_MISSING),
    ],
)
async def test_each_error_has_its_fate(bench: Bench, error: Exception, fate: Fate, reason: GapReason | None) -> None:
    """Not yet waits without counting as a failure, and tells what it would become; what cannot be had is a gap."""
    recording = bench.vendor.add(1)
    bench.vendor.script[recording.id] = [error]
    outcome = await archive(bench, recording)
    assert (outcome.fate, outcome.reason, outcome.failed) == (fate, reason, False)


async def test_missing_media_are_waited_for_while_nodes_synchronise(bench: Bench) -> None:
    """404 within 15 minutes of the call's end is not yet; after that it is a gap."""
    recording = bench.vendor.add(1, minutes_ago=10)
    bench.vendor.script[recording.id] = [MediaNotFound("404"), MediaNotFound("404")]
    assert (await archive(bench, recording)).fate is Fate.PENDING
    bench.clock.advance(6 * 60)
    assert (await archive(bench, recording)).reason is GapReason.MEDIA_MISSING


@pytest.mark.parametrize("error", [StopSource("wrong password"), WaitUntil("later", 600)])
async def test_what_concerns_the_source_is_raised(bench: Bench, error: Exception) -> None:
    """A wrong password or a long wait is not this recording's outcome."""
    recording = bench.vendor.add(1)
    bench.vendor.script[recording.id] = [error]
    with pytest.raises(type(error)):
        await archive(bench, recording)


async def test_what_concerns_the_bucket_is_raised(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bucket that is down is not this recording's failure."""

    async def down(*_: Any, **__: Any) -> None:
        raise StoreUnavailable("down")

    monkeypatch.setattr(bench.store, "put", down)
    with pytest.raises(StoreUnavailable):
        await archive(bench, bench.vendor.add(1))


async def test_a_bug_met_by_one_recording_is_reported_and_tried_again(bench: Bench) -> None:
    """The unforeseen is pending with its type named, never an exception that stops the others."""
    recording = bench.vendor.add(1)
    bench.vendor.script[recording.id] = [ZeroDivisionError("x")]
    outcome = await archive(bench, recording)
    assert (outcome.fate, outcome.failed) == (Fate.PENDING, True)
    assert "ZeroDivisionError" in outcome.detail


async def test_failures_are_tried_again_less_and_less_often_until_given_up(bench: Bench) -> None:
    """The second pass tries at once, later ones wait longer; after give_up_after it is a gap with the tries told."""
    bench.change(give_up_after=timedelta(hours=2))
    recording = bench.vendor.add(1)
    bench.vendor.script[recording.id] = [Retry("reset")] * 99
    waits = []
    while True:
        outcome = await archive(bench, recording)
        attempt = await bench.services.state.attempt("hq", "rec-1")
        if outcome.fate is Fate.GAP:
            break
        assert attempt is not None
        waits.append((attempt.not_before - bench.clock.now()) / timedelta(minutes=1))
        bench.clock.advance(max(0.0, (attempt.not_before - bench.clock.now()).total_seconds()))
    assert waits[:6] == [0, 2, 4, 8, 16, 32]
    assert outcome.reason is GapReason.GAVE_UP
    assert "reset" in outcome.detail


async def test_a_recording_that_stays_truncated_says_so(bench: Bench) -> None:
    """The reason of the gap is the last trouble's own where there is one."""
    bench.change(give_up_after=timedelta(seconds=1))
    recording = bench.vendor.add(1)
    bench.vendor.script[recording.id] = [Truncated("cut")] * 6
    assert (await archive(bench, recording)).fate is Fate.PENDING
    bench.clock.advance(60)
    assert (await archive(bench, recording)).reason is GapReason.TRUNCATED


async def test_success_forgets_the_failures(bench: Bench) -> None:
    """A recording that is held is no longer being retried."""
    recording = bench.vendor.add(1)
    bench.vendor.script[recording.id] = [Retry("reset")] * 3
    await archive(bench, recording)
    assert await bench.services.state.attempts("hq") != {}
    await archive(bench, recording)
    assert await bench.services.state.attempts("hq") == {}


async def test_what_the_vendor_says_failed_is_a_gap(bench: Bench) -> None:
    """A recording in the vendor's error state is not downloaded."""
    recording = bench.vendor.add(1, readiness=Readiness.NEVER, vendor_state="error")
    assert (await archive(bench, recording)).reason is GapReason.VENDOR_ERROR
    assert bench.vendor.opened == []


async def test_what_stays_unfinished_is_not_waited_for_for_ever(bench: Bench) -> None:
    """It counts as failing once it is looked at."""
    recording = bench.vendor.add(1, readiness=Readiness.NOT_YET, vendor_state="saving")
    outcome = await archive(bench, recording)
    assert (outcome.fate, outcome.failed) == (Fate.PENDING, True)
    assert "saving" in outcome.detail


async def test_a_recording_that_killed_workers_is_given_up(bench: Bench) -> None:
    """After so many deaths it is not touched again."""
    recording = bench.vendor.add(1)
    attempt = Attempt(NOW, 3, NOW, "died", MAX_CRASHES)
    await bench.services.state.save_attempt("hq", "rec-1", attempt)
    assert (await archive(bench, recording)).reason is GapReason.CRASHED
    assert bench.vendor.opened == []


async def test_a_gap_keeps_its_history(bench: Bench) -> None:
    """A later failure brings the record up to date and keeps when it was first seen."""
    recording = bench.vendor.add(1)
    lost = Outcome(recording.id, Fate.GAP, reason=GapReason.FORBIDDEN, detail="403")
    await bench.services.state.save_attempt("hq", rid(recording.id), Attempt(NOW - timedelta(1), 4, NOW, "x"))
    await settle_gap(bench.services, bench.desk, recording, lost)
    first = await bench.gap(recording)
    assert (first.reason, first.detail, first.tries) == (GapReason.FORBIDDEN, "403", 5)
    assert first.first_seen_at == NOW - timedelta(1)
    assert await bench.services.state.attempts("hq") == {}
    bench.clock.advance(3600)
    await settle_gap(bench.services, bench.desk, recording, replace(lost, reason=GapReason.EMPTY))
    second = await bench.gap(recording)
    assert (second.reason, second.tries, second.first_seen_at) == (GapReason.EMPTY, 6, first.first_seen_at)
    assert second.last_try_at > first.last_try_at


async def test_what_is_blamed_on_the_source_stays_pending_until_given_up(bench: Bench) -> None:
    """A gap that is put off is tried again later, and still becomes a gap when it is too old."""
    bench.change(give_up_after=timedelta(seconds=1))
    recording = bench.vendor.add(1)
    lost = Outcome(recording.id, Fate.GAP, reason=GapReason.FORBIDDEN, detail="403")
    assert (await put_off(bench.services, bench.desk, recording, lost)).fate is Fate.PENDING
    bench.clock.advance(5)
    assert (await put_off(bench.services, bench.desk, recording, lost)).fate is Fate.GAP
    assert (await bench.gap(recording)).reason is GapReason.FORBIDDEN


@pytest.mark.parametrize("where", ["head", "sha256"])
async def test_media_that_vanish_while_being_compared_are_tried_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """An object that is there and gone again is no reason to give up."""
    recording = bench.vendor.add(1, body=wav(800))
    await archive(bench, recording)
    del bench.store.versions_of[bench.keys.sidecar("hq", recording.started_at.date(), "rec-1")]
    head = bench.store.head

    async def gone(key: str) -> Any:
        if where == "sha256":
            bench.store.versions_of[key], kept = [], bench.store.versions_of[key]
            info = await _head_of(head, bench, key, kept)
            del bench.store.versions_of[key]
            return info
        del bench.store.versions_of[key]
        return None

    async def _head_of(head: Callable[..., Any], bench: Bench, key: str, kept: Any) -> Any:
        bench.store.versions_of[key] = kept
        return await head(key)

    monkeypatch.setattr(bench.store, "head", gone)
    assert (await archive(bench, recording)).fate is Fate.ARCHIVED  # the second try writes it anew


async def test_details_that_cannot_be_had_do_not_cost_the_audio(bench: Bench) -> None:
    """After give_up_after it is archived without them, with a note."""
    recording = bench.vendor.add(1)

    def broken(_: Recording) -> Recording:
        raise Retry("500 on details")

    bench.vendor.describes = broken
    assert (await archive(bench, recording)).fate is Fate.PENDING
    bench.clock.advance(73 * 3600)
    assert (await archive(bench, recording)).fate is Fate.ARCHIVED
    assert "500 on details" in (await bench.sidecar(recording)).media.warnings[0]


async def test_not_yet_is_not_waited_for_for_ever(bench: Bench) -> None:
    """It is no failure, but after give_up_after it is a gap; a call's end in the far future is not believed."""
    recording = bench.vendor.add(1)
    far = recording.call.model_copy(update={"ended_at": datetime(9999, 12, 31, tzinfo=UTC)})
    recording = replace(recording, call=far)
    bench.vendor.script[recording.id] = [NotYet("no media link yet")] * 9
    first = await archive(bench, recording)
    assert (first.fate, first.failed) == (Fate.PENDING, False)
    bench.clock.advance(73 * 3600)
    assert (await archive(bench, recording)).reason is GapReason.GAVE_UP


async def test_a_connectors_own_time_out_is_a_bug_and_told_as_one(bench: Bench) -> None:
    """Only the limit of the recording itself is taken for it."""
    recording = bench.vendor.add(1)
    bench.vendor.script[recording.id] = [TimeoutError()]
    outcome = await archive(bench, recording)
    assert "unexpected TimeoutError" in outcome.detail


async def test_state_that_is_gone_is_raised(bench: Bench) -> None:
    """It is neither the recording's failure nor a bug."""
    recording = bench.vendor.add(1)
    bench.vendor.script[recording.id] = [StateUnavailable("gone")]
    with pytest.raises(StateUnavailable):
        await archive(bench, recording)


async def test_a_gap_record_that_somebody_damaged_is_written_anew(bench: Bench) -> None:
    """It must not keep the others of its batch from being put on record."""
    recording = bench.vendor.add(1)
    key = bench.keys.gap("hq", recording.started_at.date(), "rec-1")
    await bench.store.put(key, b"{", sha256=hashlib.sha256(b"{").hexdigest(), content_type="application/json")
    lost = Outcome(recording.id, Fate.GAP, reason=GapReason.EMPTY, detail="empty")
    await settle_gap(bench.services, bench.desk, recording, lost)
    assert (await bench.gap(recording)).tries == 1


async def test_a_quarantine_number_that_was_just_taken_is_no_trouble_of_the_bucket(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another worker was faster: tried again, with the next number."""
    recording = bench.vendor.add(1, claimed_hash=ClaimedHash("SHA256", "0" * 64))
    taken = "v1/quarantine/source=hq/date=2026-03-05/rec-1.1.wav"
    put = bench.store.put

    async def racing(key: str, body: Any, **more: Any) -> Any:
        if key == taken and key not in bench.store.versions_of:
            await put(key, b"x", sha256=hashlib.sha256(b"x").hexdigest(), content_type="audio/wav")
        return await put(key, body, **more)

    monkeypatch.setattr(bench.store, "put", racing)
    outcome = await archive(bench, recording)
    assert outcome.reason is GapReason.HASH_MISMATCH
    assert "rec-1.2.wav" in outcome.detail


async def test_a_cancelled_transfer_leaves_nothing(bench: Bench) -> None:
    """Cancellation in the middle of a large upload aborts it and closes the stream."""
    body = wav(1400)
    reached, stream = asyncio.Event(), FakeStream(body)

    async def stuck() -> Any:
        async def chunks() -> Any:
            yield body[: 6 * 1024 * 1024]
            reached.set()
            await asyncio.Event().wait()

        stream.chunks = chunks  # type: ignore[method-assign]
        return stream

    recording = bench.vendor.add(1, body=body)
    bench.vendor.script[recording.id] = [stuck]
    task = asyncio.create_task(archive(bench, recording))
    await reached.wait()
    assert len(bench.store._uploads) == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert bench.store._uploads == {}
    assert stream.closed
    assert await bench.everything() == []


async def test_a_describe_that_fails_is_the_recordings_own_trouble(bench: Bench) -> None:
    """A detail that cannot be had now is a retry of this recording."""
    recording = bench.vendor.add(1)

    def broken(_: Recording) -> Recording:
        raise BadAnswer("no JSON")

    bench.vendor.describes = broken
    assert (await archive(bench, recording)).fate is Fate.PENDING
