"""The workers carry a matter through, turn by turn: notes, one at a time, what was cut short is asked for again."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

import worker.carrying
from storage.errors import StoreUnavailable
from storage.state import StateUnavailable
from storage.swept import Swept
from tests.support.bench import Bench
from tests.support.matters import archive, held, make, place, release
from worker.carrying import due, note_of, turn
from worker.matters import FRESH
from worker.sweep import sweep, swept

TWO_DAYS = 2 * 24 * 3600


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """Return a workbench whose bucket can hold."""
    return make(tmp_path)


async def filled(bench: Bench) -> None:
    """Archive two recordings of two days and place a matter on them."""
    await archive(bench, bench.vendor.add(1), bench.vendor.add(2, minutes_ago=3000))
    bench.clock.advance(FRESH)
    await place(bench)


async def test_turns_until_it_is_done(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each turn that is not enough asks for the next; the note tells how far it is."""
    await filled(bench)
    monkeypatch.setattr(worker.carrying, "TURN_SECONDS", 0.0)
    sent: list[str] = []
    first = await turn(bench.services, "smith", sent.append)
    assert first
    assert (first.done, sent) == (False, ["smith"])
    noted = await bench.services.state.noted(note_of("smith"))
    assert (Swept.model_validate_json(noted["swept"]), noted["done"]) == (first, "")
    monkeypatch.setattr(worker.carrying, "TURN_SECONDS", 1000.0)
    assert await turn(bench.services, "smith", sent.append)
    assert sent == ["smith"]
    assert set(map(tuple, held(bench).values())) == {(True,)}
    assert (await bench.services.state.noted(note_of("smith")))["done"] == "yes"


async def test_one_worker_at_a_matter(bench: Bench) -> None:
    """A message that came twice ends at once; a release is another piece of work and does not wait."""
    await filled(bench)
    lease = await bench.services.state.lease("hold:smith:placed", 60)
    assert lease
    assert await turn(bench.services, "smith", print) is None
    await release(bench)
    told = await turn(bench.services, "smith", print)
    assert told
    assert told.of == "released"


async def test_a_message_for_no_matter_is_dropped(bench: Bench) -> None:
    """Messages are input."""
    assert await turn(bench.services, "nobody", print) is None


async def test_a_matter_that_goes_away(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is nothing to note."""
    await filled(bench)

    async def none(*_: Any, **__: Any) -> None:
        return None

    monkeypatch.setattr(worker.carrying, "sweep", none)
    assert await turn(bench.services, "smith", print) is None
    assert await bench.services.state.noted(note_of("smith")) == {}


async def test_trouble_is_noted(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """For who looks on; the daily round asks for it again."""
    await filled(bench)

    async def down(*_: Any, **__: Any) -> None:
        raise StoreUnavailable("bucket down")

    monkeypatch.setattr(bench.store, "set_legal_hold", down)
    with pytest.raises(StoreUnavailable):
        await turn(bench.services, "smith", print)
    assert (await bench.services.state.noted(note_of("smith")))["error"] == "bucket down"


@pytest.mark.parametrize("broker", ["takes it", "is away"])
async def test_a_worker_that_stops_asks_for_the_rest(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, broker: str
) -> None:
    """Its message is used up; where the broker does not take another, the daily round does it."""
    await filled(bench)
    sent, begun = [], asyncio.Event()

    async def endless(*_: Any, **__: Any) -> None:
        begun.set()
        await asyncio.Event().wait()

    def send(name: str) -> None:
        sent.append(name)
        if broker == "is away":
            raise StateUnavailable("away")

    monkeypatch.setattr(worker.carrying, "sweep", endless)
    work = asyncio.create_task(turn(bench.services, "smith", send))
    await begun.wait()
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    assert sent == ["smith"]


async def test_what_the_daily_round_asks_for(bench: Bench) -> None:
    """What is not done, what had failures, what is new; not what is done and old."""
    await filled(bench)

    async def asked() -> list[str]:
        sent: list[str] = []
        await due(bench.services, sent.append)
        return sent

    assert await asked() == ["smith"]
    await sweep(bench.services, "smith")
    assert await asked() == ["smith"], "it was placed today"
    bench.clock.advance(TWO_DAYS)
    assert await asked() == []
    told = await swept(bench.services, "smith")
    assert told
    key = bench.keys.swept("smith")
    (*_, last) = bench.store.versions_of[key]
    failed = told.model_copy(update={"failed": 1}).model_dump_json(by_alias=True).encode()
    bench.store.versions_of[key].append(type(last)(failed, "", {}, last.modified, "v99"))
    assert await asked() == ["smith"]
    bench.store.versions_of[key].pop()
    await release(bench)
    bench.clock.advance(TWO_DAYS)
    assert await asked() == ["smith"], "it is released, and the hold is still there"
