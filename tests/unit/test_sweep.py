"""A matter is carried through the archive: every version of what it is about, whoever else is at work."""

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import worker.sweep
from storage.errors import LockMissing, NoObjectLock, StoreUnavailable
from storage.memory import Stored
from storage.sidecar import GapReason
from storage.swept import Swept
from tests.support.bench import NOW, Bench
from tests.support.matters import archive, held, make, place, release
from worker.gaps import write_gap, write_unreadable
from worker.matters import FRESH
from worker.model import ClaimedHash, Recording, Unreadable
from worker.pipeline import archive_one
from worker.sweep import sweep, swept

DAY = 24 * 60


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """Return a workbench whose bucket can hold."""
    return make(tmp_path)


async def filled(bench: Bench, count: int = 6) -> list[Recording]:
    """Archive recordings, one a day."""
    recordings = [bench.vendor.add(number, minutes_ago=60 + number * DAY) for number in range(count)]
    await archive(bench, *recordings)
    bench.clock.advance(FRESH)
    return recordings


async def carried(bench: Bench, name: str = "smith", **more: Any) -> Swept:
    """Carry a matter through, to its end."""
    told = await sweep(bench.services, name, **more)
    assert told
    return told


def free(bench: Bench) -> list[str]:
    """Return what is not held, versions and all, by the end of its key."""
    return sorted(name for name, holds in held(bench).items() for on in holds if not on)


async def test_what_is_in_scope_is_held(bench: Bench) -> None:
    """Media and sidecar of the days in the span, and nothing else; the figures say so, and are kept."""
    await filled(bench)
    await place(bench, **{"from": NOW - timedelta(days=4), "to": NOW - timedelta(days=1)})
    told = await carried(bench)
    assert free(bench) == sorted(f"rec-{n}.{ext}" for n in (0, 4, 5) for ext in ("wav", "json"))
    assert (told.done, told.of, told.recordings, told.held, told.right, told.failed) == (True, "placed", 3, 6, 0, 0)
    assert await swept(bench.services, "smith") == told
    again = await carried(bench)
    assert (again.recordings, again.held, again.right) == (3, 0, 6)


async def test_released_it_is_free_again(bench: Bench) -> None:
    """Unless another matter covers it."""
    await filled(bench)
    await place(bench)
    await place(bench, "jones", recordings=("hq/rec-2",))
    for name in ("smith", "jones"):
        await carried(bench, name)
    assert free(bench) == []
    await release(bench)
    told = await carried(bench)
    assert (told.of, told.freed, told.right) == ("released", 10, 2)
    assert [name for name, holds in held(bench).items() if holds == [True]] == ["rec-2.wav", "rec-2.json"]
    await release(bench, "jones")
    assert (await carried(bench, "jones")).freed == 2
    assert len(free(bench)) == 12


async def test_a_released_matter_puts_right_what_others_hold(bench: Bench) -> None:
    """A release that died between lifting and looking again is made good when it is carried on."""
    await filled(bench, 1)
    await place(bench)
    await place(bench, "jones", queue="*")
    await release(bench)
    assert (await carried(bench)).held == 2
    assert free(bench) == []


async def test_every_version_is_held(bench: Bench) -> None:
    """Also those that a store without create-only writes let in; delete markers hold nothing."""
    await filled(bench, 1)
    key = next(key for key in bench.store.versions_of if key.endswith(".wav"))
    (stored,) = bench.store.versions_of[key]
    marker = Stored(b"", "", {}, NOW, "m1", marker=True)
    other = Stored(b"other", "audio/wav", {}, NOW, "v9")
    bench.store.versions_of[key] = [other, marker, stored]
    await place(bench)
    assert (await carried(bench)).held == 3
    assert [version.legal_hold for version in bench.store.versions_of[key]] == [True, False, True]


async def test_gaps_and_evidence_are_held_with_the_recording(bench: Bench) -> None:
    """And where there is no recording, by what the gap's record says; rows nobody can read are in every span."""
    recordings = await filled(bench, 1)
    await write_gap(bench.services, bench.desk, recordings[0], GapReason.EMPTY, "no bytes")
    doubtful = bench.vendor.add(9, claimed_hash=ClaimedHash("sha256", "0" * 64))
    await archive_one(bench.services, bench.desk, doubtful, NOW)
    await write_gap(bench.services, bench.desk, doubtful, GapReason.HASH_MISMATCH, "other bytes")
    await write_unreadable(bench.services, bench.desk, Unreadable("odd", "no start", {}))
    bench.clock.advance(FRESH)
    await place(bench, **{"from": NOW - timedelta(hours=2)})
    told = await carried(bench)
    assert (told.recordings, told.held) == (3, 6)
    assert free(bench) == []


@pytest.mark.parametrize("more", [(), ("hq/rec-3", "elsewhere/rec-1")], ids=["one", "several"])
async def test_single_recordings_are_found_by_their_name(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, more: tuple[str, ...]
) -> None:
    """On whatever day they lie; no sidecar of another is read. One that begins alike is another."""
    await filled(bench)
    await archive(bench, bench.vendor.add(7, id="rec-1.x"))
    bench.clock.advance(FRESH)
    read: list[str] = []
    real = bench.store.get

    async def reading(key: str, **how: Any) -> bytes:
        read.append(key)
        return await real(key, **how)

    monkeypatch.setattr(bench.store, "get", reading)
    await place(bench, recordings=("hq/rec-1", *more))
    told = await carried(bench)
    meant = {"rec-1", *(name.partition("/")[2] for name in more if name.startswith("hq"))}
    assert {name.rpartition(".")[0] for name, holds in held(bench).items() if holds == [True]} == meant
    assert told.recordings == len(meant)
    assert len([key for key in read if "/recordings/" in key]) == 2 * len(meant)  # once for each look


async def test_what_has_no_sidecar_is_held_where_it_is_named(bench: Bench) -> None:
    """Media of a worker that died; without a name nobody knows which call they are of."""
    await filled(bench, 1)
    key = next(key for key in bench.store.versions_of if key.endswith(".json") and "/recordings/" in key)
    del bench.store.versions_of[key]
    await place(bench, "all")
    assert (await carried(bench, "all")).recordings == 0
    await place(bench, "one", recordings=("hq/rec-0",))
    assert (await carried(bench, "one")).held == 1
    assert held(bench) == {"rec-0.wav": [True]}


async def test_a_sidecar_that_tells_nothing_is_named(bench: Bench) -> None:
    """Hidden behind a delete marker, or no sidecar: a failure that somebody has to look at; the others are held."""
    await filled(bench, 4)
    keys = [key for key in bench.store.versions_of if key.endswith(".json") and "/recordings/" in key]
    bench.store.versions_of[keys[0]].append(Stored(b"", "", {}, NOW, "m1", marker=True))
    bench.store.versions_of[keys[1]] = [Stored(b"no json", "", {}, NOW, "v1")]
    await place(bench)
    told = await carried(bench)
    assert (told.recordings, told.failed, told.done) == (2, 2, True)
    assert "remove the marker (its version is m1)" in told.failures[0] + told.failures[1]
    assert any(keys[1] in failure and "cannot be read" in failure for failure in told.failures)
    await place(bench, "one", recordings=("hq/rec-0", "hq/rec-1"))
    assert ((await carried(bench, "one")).recordings, len(free(bench))) == (2, 1)  # the marker


async def test_a_hold_that_does_not_stay_is_named(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others are set, and few of many failures are told one by one."""
    monkeypatch.setattr(worker.sweep, "_NAMED", 1)
    await filled(bench, 3)
    real = bench.store.set_legal_hold

    async def dropping(key: str, version_id: str | None, *, on: bool) -> None:
        if not key.endswith("rec-0.wav"):
            raise LockMissing(f"{key} does not carry its hold", key)
        await real(key, version_id, on=on)

    monkeypatch.setattr(bench.store, "set_legal_hold", dropping)
    await place(bench)
    told = await carried(bench)
    assert (told.held, told.failed, len(told.failures)) == (1, 5, 1)
    assert "does not carry its hold" in told.failures[0]


async def test_what_is_destroyed_meanwhile_is_no_failure(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the listing and the look there may be an expiry."""
    await filled(bench, 2)
    await place(bench)
    real = bench.store.get

    async def gone(key: str, **how: Any) -> bytes:
        if key.endswith("rec-0.json"):
            for one in [one for one in bench.store.versions_of if "rec-0" in one]:
                del bench.store.versions_of[one]
        if key.endswith("rec-1.json"):
            bench.store.versions_of.pop(key.replace(".json", ".wav"), None)
        return await real(key, **how)

    monkeypatch.setattr(bench.store, "get", gone)
    told = await carried(bench)
    assert (told.recordings, told.held, told.failed) == (1, 1, 0)


async def test_foreign_objects_are_left_alone(bench: Bench) -> None:
    """Whatever lies below our prefixes in another form."""
    await filled(bench, 1)
    for key in ("v1/recordings/source=hq/date=2026-03-05/README.", "v1/recordings/other/x", "v1/gaps/source=hq/x/y"):
        bench.store.versions_of[key] = [Stored(b"x", "", {}, NOW, "v1")]
    await place(bench)
    assert (await carried(bench)).held == 2


async def test_a_record_nobody_can_read_stands_in_for_nothing(bench: Bench) -> None:
    """Somebody else's object in the place of a gap's record says nothing of a call."""
    bench.store.versions_of["v1/gaps/source=hq/date=2026-03-05/x.json"] = [Stored(b"x", "", {}, NOW, "v1")]
    await place(bench)
    assert (await carried(bench)).recordings == 0


async def test_no_such_matter(bench: Bench) -> None:
    """There is nothing to carry."""
    assert await sweep(bench.services, "smith") is None


async def test_a_matter_that_goes_away_is_carried_no_further(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody removed the object between two looks."""
    await filled(bench, 1)
    await place(bench)

    async def none(key: str) -> None:
        del bench.store.versions_of[key]

    monkeypatch.setattr(bench.store, "head", none)
    assert await sweep(bench.services, "smith") is None


async def test_the_second_look_finds_what_a_worker_wrote_that_did_not_know(bench: Bench) -> None:
    """Also on a day, and of a source, that was not there before. It waits until the last of them has written."""
    await filled(bench, 2)
    await place(bench)
    late = bench.vendor.add(7, minutes_ago=30)
    real = bench.clock.sleep

    async def meanwhile(seconds: float) -> None:
        if not any("rec-7" in key for key in bench.store.versions_of):
            bench.services.matters._known = {}
            bench.services.matters._looked = bench.clock.monotonic()  # a look of before
            await archive(bench, late)
            assert held(bench)["rec-7.json"] == [False]
        await real(seconds)

    bench.clock.sleep = meanwhile  # type: ignore[method-assign]
    told = await carried(bench)
    assert free(bench) == []
    assert (told.recordings, told.held, told.right, told.look) == (3, 6, 0, 2)
    assert sum(bench.clock.slept) >= 15


async def test_an_old_matter_is_not_looked_at_twice(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is older than the way all workers knew of."""
    await place(bench)
    await filled(bench, 3)
    bench.clock.advance(3 * 24 * 3600)
    read: list[str] = []
    real = bench.store.get

    async def reading(key: str, **how: Any) -> bytes:
        read.append(key)
        return await real(key, **how)

    monkeypatch.setattr(bench.store, "get", reading)
    await carried(bench)
    assert len([key for key in read if "/recordings/" in key]) == 3


async def test_it_goes_on_where_it_was(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Out of time it says so, and whoever calls again, in another process, takes it up; nothing is read twice."""
    monkeypatch.setattr(worker.sweep, "_BATCH", 2)
    await filled(bench, 3)
    await archive(bench, *(bench.vendor.add(number, minutes_ago=50 + number) for number in range(10, 15)))
    bench.clock.advance(2 * 24 * 3600)
    await place(bench)
    bench.clock.advance(2 * 24 * 3600)
    ways, read = [], []
    real = bench.store.get

    async def reading(key: str, **how: Any) -> bytes:
        read.append(key)
        return await real(key, **how)

    monkeypatch.setattr(bench.store, "get", reading)
    while not ways or not ways[-1].done:
        ways.append(await carried(bench, seconds=0))
    assert [way.held for way in ways[:5]] == [2, 4, 8, 12, 16]
    assert (ways[-1].recordings, free(bench)) == (8, [])
    assert len([key for key in read if "/recordings/" in key]) == 8


async def test_how_far_it_is_is_told_and_kept(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """After every batch; and put down once a minute, so that a death costs no more."""
    await filled(bench, 3)
    await place(bench)
    told: list[Swept] = []

    async def listening(way: Swept) -> None:
        told.append(way)
        bench.clock.advance(31)

    await carried(bench, told=listening)
    assert [(way.look, way.days, way.of_days, way.recordings) for way in told[:3]] == [
        (1, 0, 3, 1), (1, 1, 3, 2), (1, 2, 3, 3),
    ]  # fmt: skip
    kept = [Swept.model_validate_json(version.body) for version in bench.store.versions_of["v1/index/holds/smith.json"]]
    assert [way.done for way in kept] == [False, False, False, True][-len(kept) :]
    assert kept[0].recordings == 2


async def test_a_note_that_nobody_can_read_is_made_again(bench: Bench) -> None:
    """It is derived from the archive."""
    await filled(bench, 1)
    await place(bench)
    bench.store.versions_of["v1/index/holds/smith.json"] = [Stored(b"x", "", {}, NOW, "v1")]
    assert (await carried(bench)).held == 2


@pytest.mark.parametrize("turns", range(3, 150, 7))
async def test_it_may_be_killed_anywhere(bench: Bench, monkeypatch: pytest.MonkeyPatch, turns: int) -> None:
    """And taken up again by somebody else: everything is held, at whichever request it died."""
    monkeypatch.setattr(worker.sweep, "_SAVE_EVERY", 0.0)
    await filled(bench, 4)
    await place(bench)
    for more in (0, 20):
        work = asyncio.create_task(sweep(bench.services, "smith"))
        for _ in range(turns + more):
            await asyncio.sleep(0)
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
    assert (await carried(bench)).done
    assert free(bench) == []


async def test_two_at_once_are_as_good_as_one(bench: Bench) -> None:
    """Neither undoes what the other did."""
    await filled(bench)
    await place(bench)
    await asyncio.gather(carried(bench), carried(bench), carried(bench))
    assert free(bench) == []
    await release(bench)
    await asyncio.gather(carried(bench), carried(bench))
    assert len(free(bench)) == 12


@pytest.mark.parametrize("turns", range(0, 160, 8))
async def test_a_release_while_another_is_placed(bench: Bench, turns: int) -> None:
    """Whichever comes first at each of the versions, all of them end held by the one that is in force."""
    await filled(bench)
    await place(bench)
    await carried(bench)
    await release(bench)
    freeing = asyncio.create_task(carried(bench))
    for _ in range(turns):
        await asyncio.sleep(0)
    await place(bench, "jones")
    holding = asyncio.create_task(carried(bench, "jones"))
    await asyncio.gather(freeing, holding)
    assert free(bench) == []


async def test_a_matter_placed_after_the_lifting_began(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own way found the hold still there; the release sees it afterwards, and gives the hold back."""
    await filled(bench, 1)
    await place(bench)
    await carried(bench)
    await release(bench)
    real, done = bench.store.set_legal_hold, []

    async def lifting(key: str, version_id: str | None, *, on: bool) -> None:
        if not on and not done:
            done.append(key)
            await place(bench, "jones")
            assert (await carried(bench, "jones")).right > 0
        await real(key, version_id, on=on)

    async def between(seconds: float) -> None:
        found.append(free(bench))

    found: list[list[str]] = []
    monkeypatch.setattr(bench.store, "set_legal_hold", lifting)
    monkeypatch.setattr(bench.clock, "sleep", between)
    told = await carried(bench)
    assert found[-1] == [], "given back at once, and not by the second look"
    assert (told.freed, told.held) == (2, 2)


@pytest.mark.parametrize("turns", range(0, 120, 10))
async def test_a_matter_released_on_its_way(bench: Bench, turns: int) -> None:
    """The way that placed it carries the release through, whoever else does."""
    await filled(bench)
    await place(bench)
    holding = asyncio.create_task(carried(bench))
    for _ in range(turns):
        await asyncio.sleep(0)
    await release(bench)
    assert (await holding).of == "released"
    assert len(free(bench)) == 12


@pytest.mark.parametrize("turns", range(0, 60, 3))
async def test_a_hold_placed_while_a_recording_is_written(bench: Bench, turns: int) -> None:
    """At whatever moment: in the end media and sidecar are held."""
    await bench.services.matters.active()  # as of now there is none
    recordings = [bench.vendor.add(number) for number in range(3)]
    writing = asyncio.create_task(archive(bench, *recordings))
    for _ in range(turns):
        await asyncio.sleep(0)
    await place(bench)
    await asyncio.gather(writing, carried(bench))
    assert free(bench) == []
    assert len(held(bench)) == 6


async def test_trouble_with_the_bucket_ends_it(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is left running, and the next call goes on."""
    await filled(bench)
    await place(bench)

    async def down(*_: Any, **__: Any) -> None:
        raise StoreUnavailable("bucket down")

    with monkeypatch.context() as patch:
        patch.setattr(bench.store, "set_legal_hold", down)
        with pytest.raises(StoreUnavailable):
            await carried(bench)
    await carried(bench)
    assert free(bench) == []


async def test_a_bucket_that_lost_its_object_lock_is_no_list_of_failures(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is one trouble, told once."""
    await filled(bench, 2)
    await place(bench)

    async def cannot(*_: Any, **__: Any) -> None:
        raise NoObjectLock("no Object Lock")

    monkeypatch.setattr(bench.store, "set_legal_hold", cannot)
    with pytest.raises(NoObjectLock):
        await carried(bench)


async def test_never_more_than_so_many_requests_at_once(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many recordings a day has."""
    await archive(bench, *(bench.vendor.add(number) for number in range(60)))
    bench.clock.advance(FRESH)
    await place(bench)
    now = most = 0
    real = bench.store.protection

    async def counting(key: str, version_id: str | None) -> Any:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0)
        now -= 1
        return await real(key, version_id)

    monkeypatch.setattr(bench.store, "protection", counting)
    assert (await carried(bench)).recordings == 60
    assert most == worker.sweep.AT_ONCE
