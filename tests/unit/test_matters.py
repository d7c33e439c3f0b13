"""Matters: what a scope covers, what is refused, and how they are read: shared, fresh enough, never passed over."""

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from config.retention import LockMode, Period, Retention, Rule
from storage.errors import IntegrityError, NoObjectLock, StoreRefused, StoreUnavailable
from storage.holds import Hold, Scope
from storage.lock import Lock
from storage.memory import MemoryStore
from storage.retention import record_lock
from storage.sidecar import CallFacts, canonical
from tests.support.bench import NOW, Bench
from tests.support.matters import counted, make, place, release, step
from worker import placing
from worker.matters import FRESH

CALL = CallFacts(started_at=NOW, from_="5550100", to="1001", agent="Ann", queue="desk-1")
DAY = timedelta(days=1)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """Return a workbench whose bucket can hold."""
    return make(tmp_path)


@pytest.mark.parametrize(
    ("scope", "covered"),
    [
        ({"source": "h*"}, True),
        ({"source": "branch"}, False),
        ({"number": "5550*"}, True),
        ({"number": "1001"}, True),
        ({"number": "1002"}, False),
        ({"agent": "Ann"}, True),
        ({"agent": "ann"}, False),
        ({"queue": "desk*"}, True),
        ({"queue": "desk*", "agent": "Bob"}, False),
        ({"from": NOW}, True),
        ({"from": NOW + DAY}, False),
        ({"to": NOW}, False),
        ({"to": NOW + DAY}, True),
        ({"from": NOW - DAY, "to": NOW + DAY, "source": "hq"}, True),
        ({"recordings": ("hq/a/b",)}, True),
        ({"recordings": ("hq/a", "branch/a/b")}, False),
    ],
)
def test_what_a_scope_covers(scope: dict[str, Any], covered: bool) -> None:
    """Everything that is given has to fit; the end of a span is not in it; an id may hold a slash."""
    assert Scope(**scope).covers("hq", "a/b", CALL) is covered


def test_a_call_without_a_start_is_in_every_span() -> None:
    """What cannot be told is kept rather than lost."""
    assert Scope(from_=NOW).covers("hq", "a", CallFacts(started_at=None))


@pytest.mark.parametrize(
    ("scope", "words"),
    [
        ({}, "names nothing"),
        ({"recordings": ("hq/a",), "queue": "x"}, "nothing else goes with them"),
        ({"recordings": ("a",)}, "is not SOURCE/ID"),
        ({"recordings": ("HQ/a",)}, "is not SOURCE/ID"),
        ({"recordings": ("hq/",)}, "is not SOURCE/ID"),
        ({"queue": ""}, "empty pattern"),
        ({"from": NOW, "to": NOW}, "is not before"),
        ({"from": datetime(2026, 3, 1)}, "timezone"),  # noqa: DTZ001 - the point
        ({"que": "x"}, "Extra"),
    ],
)
def test_a_scope_that_nobody_can_mean_is_refused(scope: dict[str, Any], words: str) -> None:
    """Also in an object that somebody wrote by hand: it would hold too little, or everything."""
    with pytest.raises(ValidationError, match=words):
        Scope(**scope)


@pytest.mark.parametrize("name", ["", "Smith", "a b", "../a", "a/b", "-a", "a" * 81, "ä"])
async def test_a_name_that_fits_no_key_is_refused(bench: Bench, name: str) -> None:
    """With the rule."""
    with pytest.raises(placing.Unplaced, match="write 1 to 80 of a-z"):
        await place(bench, name)


async def test_a_matter_reads_back_as_it_was_placed(bench: Bench) -> None:
    """Scope, times, who and why; released, it is the same matter with one step more, and both versions stay."""
    placed = await place(bench, "smith", **{"from": NOW, "to": NOW + DAY, "number": "55*"})
    assert await bench.services.matters.active() == [placed]
    assert placed.scope.covers("hq", "a", CALL)
    assert await placing.find(bench.services, "smith") == placed
    bench.clock.advance(60)
    released = await release(bench)
    assert released.released
    assert (released.released.reason, released.active) == ("settled", False)
    assert (await bench.services.matters.all(), await bench.services.matters.active()) == ([released], [])
    versions = bench.store.versions_of["v1/holds/smith.json"]
    assert [version.body for version in versions] == [canonical(placed), canonical(released)]


async def test_a_name_is_used_once(bench: Bench) -> None:
    """In force or released: whoever asks for it again is told what it is, and nothing is changed."""
    placed = await place(bench)
    with pytest.raises(placing.Unplaced, match="placed 2026-03-05 12:00:00Z by ann@office and in force"):
        await place(bench, queue="x")
    assert await bench.services.matters.all() == [placed]
    await release(bench)
    with pytest.raises(placing.Unplaced, match="and released"):
        await place(bench, queue="x")


async def test_an_answer_that_was_lost_is_no_name_used_twice(bench: Bench) -> None:
    """The store says that the key is taken: by this very matter."""
    assert await place(bench) == await place(bench)


async def test_what_does_not_hold_cannot_be_released(bench: Bench) -> None:
    """No such matter, with the name that was meant; and one that was released before."""
    with pytest.raises(placing.Unplaced, match="none was ever placed"):
        await release(bench)
    await place(bench, "smith-v-acme")
    with pytest.raises(placing.Unplaced, match='did you mean "smith-v-acme"'):
        await release(bench, "smith-vs-acme")
    with pytest.raises(placing.Unplaced, match="hold list"):
        await release(bench, "jones")
    await release(bench, "smith-v-acme")
    with pytest.raises(placing.Unplaced, match="was released 2026-03-05"):
        await release(bench, "smith-v-acme")


async def test_a_bucket_that_cannot_hold_gets_no_matter(tmp_path: Path) -> None:
    """It would promise what nothing keeps: refused with how to make a bucket that can."""
    bench = make(tmp_path, store=MemoryStore(versioned=True))
    with pytest.raises(NoObjectLock, match=r"nothing in it could be held.*--object-lock-enabled-for-bucket"):
        await place(bench)
    assert await bench.everything() == []


async def test_matters_are_locked_as_long_as_anything(tmp_path: Path) -> None:
    """By the longest the policy promises to any recording, in its mode, both versions; without a mode not at all."""
    rules = (Rule("desk", {"queue": "desk"}, Period(months=120)), Rule("short", {"queue": "x"}, Period(days=3)))
    policy = Retention(LockMode.COMPLIANCE, default=Period(months=84), rules=rules)
    bench = make(tmp_path, policy)
    await place(bench)
    await release(bench)
    until = datetime(2036, 3, 5, 12, tzinfo=UTC)
    locks = [version.lock for version in bench.store.versions_of["v1/holds/smith.json"]]
    assert locks == [Lock(LockMode.COMPLIANCE, until)] * 2
    assert record_lock(Retention(), NOW) is None


async def test_those_who_ask_at_once_share_a_look(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred writers cost one listing, and none before it is `FRESH` seconds old."""
    await place(bench)
    looks = counted(bench, monkeypatch)
    ask = bench.services.matters.holding
    for _ in range(3):
        found = await asyncio.gather(*(ask("hq", str(number), CALL) for number in range(100)))
        assert found == [["smith"]] * 100
    assert looks == ["v1/holds/"]
    bench.clock.advance(FRESH)
    await ask("hq", "a", CALL)
    assert looks == ["v1/holds/"] * 2


async def test_a_fresh_look_begins_after_it_was_asked_for(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is under way already may have missed what was placed just now."""
    matters, begun, go = bench.services.matters, asyncio.Event(), asyncio.Event()
    read = matters._read

    async def slow() -> Any:
        found = await read()
        begun.set()
        await go.wait()
        return found

    monkeypatch.setattr(matters, "_read", slow)
    old = asyncio.create_task(matters.active())
    await begun.wait()
    hold = Hold(name="late", scope=Scope(source="hq"), placed=step(bench))
    await placing._write(bench.services, hold, create_only=True)
    new, lazy = asyncio.create_task(matters.active()), asyncio.create_task(matters.active(fresh=False))
    await asyncio.sleep(0)
    go.set()
    assert await old == []
    assert await new == [hold]
    assert await lazy in ([], [hold])


async def test_a_look_that_took_long_is_not_good_enough(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever joined it gets what was there `FRESH` seconds ago at most."""
    matters, reads, begun = bench.services.matters, [], asyncio.Event()
    read = matters._read

    async def slow() -> Any:
        reads.append(1)
        begun.set()
        found = await read()
        if len(reads) == 1:
            hold = Hold(name="late", scope=Scope(source="hq"), placed=step(bench))
            await placing._write(bench.services, hold, create_only=True)
            bench.clock.advance(FRESH + 1)
        return found

    monkeypatch.setattr(matters, "_read", slow)
    first = asyncio.create_task(matters.active(fresh=False))
    await begun.wait()
    assert [hold.name for hold in await matters.active(fresh=False)] == ["late"]
    await first
    assert len(reads) == 2


async def test_a_look_that_has_just_ended_is_not_waited_for(bench: Bench) -> None:
    """Whoever asks in the very moment in which a look ends, whichever that is, begins another, and nobody spins."""
    matters = bench.services.matters

    async def asks(turns: int) -> None:
        for _ in range(turns):
            await asyncio.sleep(0)
        await matters.all()

    await asyncio.gather(*(asks(turns) for turns in range(20)), *(asks(turns) for turns in range(20)))


async def test_a_look_that_failed_is_told_to_all_and_tried_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody goes on with what was known before."""
    await place(bench)
    matters = bench.services.matters
    await matters.all()
    with monkeypatch.context() as patch:
        patch.setattr(bench.store, "objects", down)
        for fresh in (True, True):
            told = await asyncio.gather(*(matters.all(fresh=fresh) for _ in range(3)), return_exceptions=True)
            assert [type(error) for error in told] == [StoreUnavailable] * 3
        bench.clock.advance(FRESH)
        with pytest.raises(StoreUnavailable):
            await matters.holding("hq", "a", CALL)
    assert await matters.holding("hq", "a", CALL) == ["smith"]


async def test_who_is_cancelled_does_not_take_the_look_away(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others get their answer; and a look that nobody waits for any more makes no noise when it fails."""
    await place(bench)
    matters = bench.services.matters
    one, other = asyncio.create_task(matters.active()), asyncio.create_task(matters.active())
    await asyncio.sleep(0)
    one.cancel()
    assert [hold.name for hold in await other] == ["smith"]
    with monkeypatch.context() as patch:
        patch.setattr(bench.store, "objects", down)
        alone = asyncio.create_task(matters.active())
        await asyncio.sleep(0)
        alone.cancel()
        await asyncio.gather(alone, return_exceptions=True)
    look = asyncio.create_task(matters.active())
    await asyncio.sleep(0)
    assert matters._looking
    matters._looking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await look
    assert [hold.name for hold in await matters.active()] == ["smith"]


def down(*_: Any, **__: Any) -> Any:
    """Be a bucket that is down."""
    raise StoreUnavailable("bucket down")


@pytest.mark.parametrize("body", [b"{}", b"no json", b'{"schema": "callvault/hold/v9"}'])
async def test_a_matter_that_cannot_be_read_stops_everything(bench: Bench, body: bytes) -> None:
    """What it holds would go unheld: the key is named."""
    await write(bench, "v1/holds/odd.json", body)
    with pytest.raises(StoreRefused, match=r"v1/holds/odd.json is no matter that can be read.*put right"):
        await bench.services.matters.active(fresh=False)


async def test_a_matter_under_another_name_or_too_large_stops_everything(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy under another key would never be released by its name."""
    hold = await place(bench)
    await write(bench, "v1/holds/copy.json", canonical(hold))
    with pytest.raises(StoreRefused, match="it is that of smith"):
        await bench.services.matters.active()
    bench.store.versions_of.pop("v1/holds/copy.json")

    async def large(key: str, *, max_bytes: int) -> bytes:
        raise IntegrityError("larger", key)

    monkeypatch.setattr(bench.store, "get", large)
    await write(bench, "v1/holds/smith.json", b"x")
    with pytest.raises(StoreRefused, match="IntegrityError"):
        await bench.services.matters.active()


async def write(bench: Bench, key: str, body: bytes) -> None:
    """Write somebody's object."""
    import hashlib

    digest = hashlib.sha256(body).hexdigest()
    await bench.store.put(key, body, sha256=digest, content_type="application/json", create_only=False)
