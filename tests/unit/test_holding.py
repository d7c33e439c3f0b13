"""What a matter covers is held from the moment it is written: media, sidecar, evidence and the record of a gap."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from storage.errors import LockMissing, ObjectMissing, StoreUnavailable
from storage.keys import rid, utc_date
from storage.memory import MemoryStore, _MemoryUpload
from storage.sidecar import GapReason
from tests.support.audio import wav
from tests.support.bench import NOW, Bench
from tests.support.matters import archive, counted, held, make, place, release
from worker.gaps import write_gap, write_unreadable
from worker.holding import SETTLED
from worker.matters import FRESH
from worker.model import ClaimedHash, Recording, Unreadable
from worker.outcome import Fate
from worker.pipeline import archive_one

SMALL_AND_LARGE = pytest.mark.parametrize("seconds", [1, 800], ids=["small", "large"])


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """Return a workbench whose bucket can hold."""
    return make(tmp_path)


def sidecar_key(bench: Bench, recording: Recording) -> str:
    """Return where the sidecar lies."""
    return bench.keys.sidecar("hq", utc_date(recording.started_at), rid(recording.id))


@SMALL_AND_LARGE
async def test_what_a_matter_covers_is_held_at_once(bench: Bench, seconds: int) -> None:
    """In one piece or in parts, and the sidecar says so; what it does not cover is not."""
    await place(bench, recordings=("hq/rec-1",))
    await archive(bench, bench.vendor.add(1, body=wav(seconds)), bench.vendor.add(2, body=wav(seconds)))
    assert held(bench) == {"rec-1.wav": [True], "rec-1.json": [True], "rec-2.wav": [False], "rec-2.json": [False]}
    first, second = bench.vendor.recordings
    assert (await bench.sidecar(first)).archive.legal_hold
    assert not (await bench.sidecar(second)).archive.legal_hold


async def test_what_describe_tells_counts(bench: Bench) -> None:
    """The queue of a call may not be in the listing."""
    await place(bench, queue="desk")

    def describes(recording: Recording) -> Recording:
        return Recording(recording.id, recording.call.model_copy(update={"queue": "desk"}), recording.record)

    bench.vendor.describes = describes
    await archive(bench, bench.vendor.add(1))
    assert held(bench) == {"rec-1.wav": [True], "rec-1.json": [True]}


async def test_it_is_written_with_the_bytes(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not set afterwards: there is no moment in which somebody could delete it."""
    await place(bench)
    monkeypatch.setattr(bench.store, "set_legal_hold", None)
    await archive(bench, bench.vendor.add(1), bench.vendor.add(2, body=wav(800)))
    assert set(map(tuple, held(bench).values())) == {(True,)}


async def test_a_released_matter_holds_nothing_new(bench: Bench) -> None:
    """From a few seconds after its release on; another that covers it holds it still."""
    await place(bench)
    await place(bench, "jones", queue="*")
    await release(bench)
    bench.clock.advance(FRESH)
    await archive(bench, bench.vendor.add(1))
    assert held(bench) == {"rec-1.wav": [True], "rec-1.json": [True]}
    await release(bench, "jones")
    bench.clock.advance(FRESH)
    await archive(bench, bench.vendor.add(2))
    assert held(bench)["rec-2.json"] == [False]


async def test_archives_without_matters_pay_one_listing_in_five_seconds(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many recordings are written."""
    looks = counted(bench, monkeypatch)
    await archive(bench, *(bench.vendor.add(number) for number in range(10)))
    assert looks == ["v1/holds/"]


async def test_a_bucket_that_cannot_hold_is_not_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody can place a matter there."""
    bench = make(tmp_path, store=MemoryStore())
    looks = counted(bench, monkeypatch)
    await archive(bench, bench.vendor.add(1))
    await write_gap(bench.services, bench.desk, bench.vendor.add(2), GapReason.EMPTY, "no bytes")
    assert looks == []


async def test_nothing_is_written_while_the_matters_are_not_known(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bucket that does not tell stops the pass."""

    def down(*_: Any, **__: Any) -> Any:
        raise StoreUnavailable("bucket down")

    monkeypatch.setattr(bench.store, "objects", down)
    with pytest.raises(StoreUnavailable):
        await archive(bench, bench.vendor.add(1))
    monkeypatch.undo()
    assert await bench.everything() == []


async def test_without_its_hold_nothing_is_archived(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Media that the store would not hold stop the pass, and no sidecar is written."""
    await place(bench)
    real = bench.store.put

    async def dropped(key: str, *args: Any, **more: Any) -> Any:
        if more["legal_hold"]:
            raise LockMissing("the store keeps no hold", key)
        return await real(key, *args, **more)

    monkeypatch.setattr(bench.store, "put", dropped)
    with pytest.raises(LockMissing):
        await archive(bench, bench.vendor.add(1))
    assert held(bench) == {}


async def _left_behind(bench: Bench, seconds: int = 1) -> Recording:
    """Have an earlier try have written the media and died."""
    recording = bench.vendor.add(1, body=wav(seconds))
    await archive(bench, recording)
    del bench.store.versions_of[sidecar_key(bench, recording)]
    return recording


@SMALL_AND_LARGE
async def test_adopted_media_are_held(bench: Bench, seconds: int) -> None:
    """What an earlier try wrote before the matter was placed is held before its sidecar is written."""
    recording = await _left_behind(bench, seconds)
    await place(bench)
    bench.clock.advance(FRESH)
    await archive(bench, recording)
    assert held(bench) == {"rec-1.wav": [True], "rec-1.json": [True]}


async def test_of_an_earlier_try_no_hold_is_lifted(bench: Bench) -> None:
    """It may be somebody else's: the audit tells of it."""
    recording = await _left_behind(bench)
    (key,) = bench.store.versions_of
    await bench.store.set_legal_hold(key, None, on=True)
    await archive(bench, recording)
    assert held(bench) == {"rec-1.wav": [True], "rec-1.json": [False]}


async def test_adopted_media_that_vanish_are_tried_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next try finds the key free, and archives."""
    recording = await _left_behind(bench)
    await place(bench)
    bench.clock.advance(FRESH)
    real = bench.store.set_legal_hold

    async def gone(key: str, version_id: str | None, *, on: bool) -> None:
        monkeypatch.setattr(bench.store, "set_legal_hold", real)
        del bench.store.versions_of[key]
        raise ObjectMissing("gone", key)

    monkeypatch.setattr(bench.store, "set_legal_hold", gone)
    await archive(bench, recording)
    assert held(bench) == {"rec-1.wav": [True], "rec-1.json": [True]}


async def test_a_sidecar_that_is_there_is_held(bench: Bench) -> None:
    """One that another worker wrote, before it knew, is held before the recording counts."""
    recording = bench.vendor.add(1)
    await archive(bench, recording)
    await place(bench)
    bench.clock.advance(FRESH)
    outcome = await archive_one(bench.services, bench.desk, recording, NOW)
    assert outcome.fate is Fate.HELD
    assert held(bench) == {"rec-1.wav": [True], "rec-1.json": [True]}


def when(bench: Bench, monkeypatch: pytest.MonkeyPatch, key_ends: str, act: Callable[[], Awaitable[object]]) -> None:
    """Do something once, when an object is being written: after the matters were asked, before it is there."""
    put, complete, done = bench.store.put, _MemoryUpload.complete, []

    async def once(key: str) -> None:
        if key.endswith(key_ends) and not done:
            done.append(key)
            await act()

    async def putting(key: str, *args: Any, **more: Any) -> Any:
        await once(key)
        return await put(key, *args, **more)

    async def completing(self: _MemoryUpload) -> Any:
        await once(self._key)
        return await complete(self)

    monkeypatch.setattr(bench.store, "put", putting)
    monkeypatch.setattr(_MemoryUpload, "complete", completing)


@SMALL_AND_LARGE
async def test_media_that_were_under_way_when_the_matter_was_placed(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, seconds: int
) -> None:
    """They are held before the sidecar is written, which is held with them."""

    async def act() -> None:
        await place(bench)
        bench.clock.advance(FRESH)

    when(bench, monkeypatch, ".wav", act)
    recording = bench.vendor.add(1, body=wav(seconds))
    await archive(bench, recording)
    assert held(bench) == {"rec-1.wav": [True], "rec-1.json": [True]}
    assert (await bench.sidecar(recording)).archive.legal_hold


@SMALL_AND_LARGE
async def test_media_that_were_under_way_when_the_matter_was_released(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, seconds: int
) -> None:
    """They are free again: nobody would lift their hold later."""
    await place(bench)

    async def act() -> None:
        await release(bench)
        bench.clock.advance(FRESH)

    when(bench, monkeypatch, ".wav", act)
    await archive(bench, bench.vendor.add(1, body=wav(seconds)))
    assert held(bench) == {"rec-1.wav": [False], "rec-1.json": [False]}


async def test_a_matter_placed_while_a_hold_is_lifted(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is seen after the lifting, and the hold is given back."""
    await place(bench)

    async def act() -> None:
        await release(bench)
        bench.clock.advance(FRESH)

    when(bench, monkeypatch, ".wav", act)
    real = bench.store.set_legal_hold

    async def lifting(key: str, version_id: str | None, *, on: bool) -> None:
        if not on:
            await place(bench, "jones")
        await real(key, version_id, on=on)

    monkeypatch.setattr(bench.store, "set_legal_hold", lifting)
    await archive(bench, bench.vendor.add(1))
    assert held(bench)["rec-1.wav"] == [True]


async def test_a_sidecar_that_took_long_is_looked_at_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who placed the matter meanwhile has had the second look already, and missed it."""

    async def act() -> None:
        await place(bench)
        bench.clock.advance(SETTLED + 1)

    when(bench, monkeypatch, "rec-1.json", act)
    await archive(bench, bench.vendor.add(1))
    assert held(bench) == {"rec-1.wav": [True], "rec-1.json": [True]}


async def test_a_sidecar_that_did_not_is_left_to_the_second_look(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """One listing in five seconds is all that a write costs."""

    async def act() -> None:
        await place(bench)
        bench.clock.advance(SETTLED)

    when(bench, monkeypatch, "rec-1.json", act)
    await archive(bench, bench.vendor.add(1))
    assert held(bench) == {"rec-1.wav": [False], "rec-1.json": [False]}


@SMALL_AND_LARGE
async def test_evidence_and_the_record_of_a_gap_are_held(bench: Bench, seconds: int) -> None:
    """The call is in dispute, whatever could be had of it."""
    await place(bench)
    recording = bench.vendor.add(1, body=wav(seconds), claimed_hash=ClaimedHash("sha256", "0" * 64))
    outcome = await archive_one(bench.services, bench.desk, recording, NOW)
    assert outcome.reason is GapReason.HASH_MISMATCH
    for _ in range(2):
        await write_gap(bench.services, bench.desk, recording, GapReason.HASH_MISMATCH, "other bytes")
    assert held(bench) == {"rec-1.1.wav": [True], "rec-1.json": [True, True]}


async def test_evidence_that_was_under_way_when_the_matter_was_placed(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is held right after."""

    async def act() -> None:
        await place(bench)
        bench.clock.advance(FRESH)

    when(bench, monkeypatch, ".wav", act)
    recording = bench.vendor.add(1, claimed_hash=ClaimedHash("sha256", "0" * 64))
    await archive_one(bench.services, bench.desk, recording, NOW)
    assert held(bench) == {"rec-1.1.wav": [True]}


async def test_a_record_that_took_long_is_looked_at_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a sidecar is."""

    async def act() -> None:
        await place(bench)
        bench.clock.advance(SETTLED + 1)

    when(bench, monkeypatch, "/x.json", act)
    await write_unreadable(bench.services, bench.desk, Unreadable("x", "no start", {}))
    assert held(bench) == {"x.json": [True]}
