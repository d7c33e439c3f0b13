"""One writer at a recording on a store that does not refuse a second one. The archive is in memory."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from storage.memory import MemoryStore
from storage.state import StateUnavailable
from storage.state_local import LocalState
from storage.store import Capabilities
from tests.support.bench import NOW, Bench, make_bench
from tests.support.clock import FakeClock
from tests.support.waiting import PATIENCE
from worker.model import Recording
from worker.outcome import Fate, Outcome
from worker.pipeline import archive_one


class CarelessStore(MemoryStore):
    """Says of itself that it heeds no `If-None-Match`."""

    careless: tuple[str, ...] = ("create_only", "create_only_multipart")

    async def ensure_probed(self) -> Capabilities:
        return replace(await super().ensure_probed(), **dict.fromkeys(self.careless, False))


class ScriptedState(LocalState):
    """Each claim is the next of `claims`, or None where that says so; a real one when there is none left."""

    def __init__(self, folder: Path, *claims: "ScriptedClaim | None") -> None:
        super().__init__(folder, "test", FakeClock(NOW))
        self.claims = list(claims)
        self.asked: list[str] = []

    async def claim(self, name: str, ttl: float) -> "ScriptedClaim | None":  # type: ignore[override]
        self.asked.append(name)
        return self.claims.pop(0) if self.claims else ScriptedClaim()


class ScriptedClaim:
    """Renewed as `renewals` say, and well from then on."""

    def __init__(self, *renewals: bool | Exception, release: Exception | None = None) -> None:
        self.renewals = list(renewals)
        self.release_fails = release
        self.renewed = 0
        self.twice = asyncio.Event()
        self.released = False

    async def renew(self) -> bool:
        self.renewed += 1
        if self.renewed >= 2:
            self.twice.set()
        answer = self.renewals.pop(0) if self.renewals else True
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def seen_twice(self) -> None:
        async with asyncio.timeout(PATIENCE):
            await self.twice.wait()

    async def release(self) -> None:
        self.released = True
        if self.release_fails:
            raise self.release_fails


def careless(folder: Path, *claims: ScriptedClaim | None) -> Bench:
    """Return a bench whose store lets a second writer in."""
    return make_bench(folder, state=ScriptedState(folder, *claims), store=CarelessStore())


async def archive(bench: Bench, recording: Recording) -> Outcome:
    """Archive with the bench's parts."""
    return await archive_one(bench.services, bench.desk, recording, NOW)


async def test_a_store_that_refuses_by_itself_is_trusted(tmp_path: Path) -> None:
    """No claim is asked for, which would cost a recording two round trips."""
    state = ScriptedState(tmp_path)
    bench = make_bench(tmp_path, state=state)
    assert (await archive(bench, bench.vendor.add(1))).fate is Fate.ARCHIVED
    assert state.asked == []


@pytest.mark.parametrize("missing", CarelessStore.careless)
async def test_one_gap_is_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    """Whether a recording turns out small or large is not known before; the claim is given back at the end."""
    monkeypatch.setattr(CarelessStore, "careless", (missing,))
    claim = ScriptedClaim()
    bench = careless(tmp_path, claim)
    assert (await archive(bench, bench.vendor.add(1))).fate is Fate.ARCHIVED
    assert bench.services.state.asked == ["hq:rec-1"]
    assert claim.released


async def test_a_recording_that_another_is_at_is_left_alone(tmp_path: Path) -> None:
    """It is pending and no failure, costs the phone system nothing, and nothing is remembered of it."""
    bench = careless(tmp_path, None)
    outcome = await archive(bench, bench.vendor.add(1))
    assert outcome == Outcome("rec-1", Fate.PENDING, detail="another worker is archiving it just now")
    assert bench.vendor.opened == []
    assert await bench.everything() == []
    assert await bench.services.state.attempts("hq") == {}


async def test_the_next_finds_it_held(tmp_path: Path) -> None:
    """With a real claim: the second of two is left alone while the first is at it, and finds it held afterwards."""
    bench = make_bench(tmp_path, store=CarelessStore())
    recording = bench.vendor.add(1)
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slowly() -> None:
        begun.set()
        await go_on.wait()

    bench.vendor.script[recording.id] = [slowly]
    first = asyncio.create_task(archive(bench, recording))
    await begun.wait()
    assert (await archive(bench, recording)).fate is Fate.PENDING
    go_on.set()
    assert (await first).fate is Fate.ARCHIVED
    assert (await archive(bench, recording)).fate is Fate.HELD
    assert [len(versions) for versions in bench.store.versions_of.values()] == [1, 1]


async def test_a_claim_is_renewed_for_as_long_as_it_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A long download does not lose it, nor does a state that is away for a moment."""
    monkeypatch.setattr("worker.claim._RENEW_EVERY", 0.001)
    claim = ScriptedClaim(StateUnavailable("away"))
    bench = careless(tmp_path, claim)
    recording = bench.vendor.add(1)
    bench.vendor.script[recording.id] = [claim.seen_twice]
    assert (await archive(bench, recording)).fate is Fate.ARCHIVED
    assert claim.renewed >= 2


async def test_a_claim_that_was_forgotten_is_taken_again(tmp_path: Path) -> None:
    """A state that was emptied meanwhile costs nothing."""
    lost, again = ScriptedClaim(False), ScriptedClaim()
    bench = careless(tmp_path, lost, again)
    assert (await archive(bench, bench.vendor.add(1))).fate is Fate.ARCHIVED
    assert again.released


async def test_nothing_is_written_once_another_has_the_claim(tmp_path: Path) -> None:
    """Who was away for so long that somebody else took over drops what came."""
    bench = careless(tmp_path, ScriptedClaim(False), None)
    outcome = await archive(bench, bench.vendor.add(1))
    assert (outcome.fate, outcome.failed) == (Fate.PENDING, False)
    assert await bench.everything() == []


async def test_no_sidecar_either(tmp_path: Path) -> None:
    """The same between media and sidecar: whoever has the claim adopts the media and writes it."""
    bench = careless(tmp_path, ScriptedClaim(True, False), None)
    assert (await archive(bench, bench.vendor.add(1))).fate is Fate.PENDING
    assert [key.rpartition(".")[2] for key in await bench.everything()] == ["wav"]


async def test_a_claim_that_cannot_be_given_back_lapses(tmp_path: Path) -> None:
    """The recording is archived all the same."""
    bench = careless(tmp_path, ScriptedClaim(release=StateUnavailable("away")))
    assert (await archive(bench, bench.vendor.add(1))).fate is Fate.ARCHIVED


async def test_without_the_state_nothing_is_written(tmp_path: Path) -> None:
    """Whether another is at it cannot be known: the batch is tried again, nothing is lost."""
    claim = ScriptedClaim(StateUnavailable("away"))
    bench = careless(tmp_path, claim)
    with pytest.raises(StateUnavailable):
        await archive(bench, bench.vendor.add(1))
    assert claim.released
    assert await bench.everything() == []


async def test_a_failure_gives_the_claim_back(tmp_path: Path) -> None:
    """The next try need not wait until it lapses."""
    claim = ScriptedClaim()
    bench = careless(tmp_path, claim)
    recording = bench.vendor.add(1)
    bench.vendor.script[recording.id] = [ZeroDivisionError()]
    assert (await archive(bench, recording)).fate is Fate.PENDING
    assert claim.released
