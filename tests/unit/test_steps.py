"""Dying at each named step of a recording's way, in process: what a fault campaign does to real workers, in order."""

from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

import worker.chain
from storage.memory import MemoryStore
from storage.sidecar import GapReason
from storage.state_local import LocalState
from tests.support.audio import wav
from tests.support.bench import Bench, make_bench
from tests.support.message_queue import Queue
from worker.model import ClaimedHash, Recording
from worker.steps import Step, listen

PART = 5 * 1024 * 1024
MANY = 9


class Died(BaseException):
    """The process is gone: nothing may catch this."""


@pytest.fixture(autouse=True)
def _nobody_listens_afterwards() -> Iterator[None]:
    """Leave no listener to the next test."""
    yield
    listen(None)


def company(folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Bench, list[Recording], Recording]:
    """Return a bench, recordings that can be archived (one of them in parts), and one whose hash is wrong."""
    monkeypatch.setattr(worker.chain, "BATCH", 2)
    bench = make_bench(folder, store=MemoryStore(versioned=True), processes=1, part_bytes=PART)
    good = [bench.vendor.add(number, minutes_ago=100 - number) for number in range(MANY)]
    good.append(bench.vendor.add(50, minutes_ago=80, body=wav(PART / 8000 + 1)))
    wrong = bench.vendor.add(51, minutes_ago=79, claimed_hash=ClaimedHash("SHA256", "0" * 64))
    return bench, good, wrong


async def one_pass(queue: Queue) -> None:
    """Poll and archive once."""
    await queue.poll()
    await queue.work_off()


async def live_on(bench: Bench) -> None:
    """Poll and archive until nothing more comes, as the next ticks of the clock would."""
    for _ in range(6):
        bench.clock.advance(timedelta(minutes=10).total_seconds())
        await one_pass(Queue(bench))


async def settled(bench: Bench, good: list[Recording], wrong: Recording) -> None:
    """Assert that everything is where it belongs, once."""
    store = bench.store
    assert isinstance(store, MemoryStore)
    for recording in good:
        sidecar = await bench.sidecar(recording)
        assert await store.sha256(sidecar.media.key) == sidecar.media.sha256
        assert await store.count_versions(sidecar.media.key) == 1
    assert (await bench.gap(wrong)).reason is GapReason.HASH_MISMATCH
    found = Counter(key.split("/")[1] for key in await bench.everything())
    assert found["recordings"] == 2 * len(good)
    assert found["gaps"] == 1


@pytest.mark.parametrize("flushed", [False, True], ids=["state kept", "state lost"])
@pytest.mark.parametrize("step", Step)
async def test_a_death_at_any_step_loses_and_doubles_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: Step, flushed: bool
) -> None:
    """Whoever dies there, and whether or not the state survives: in the end all is held once, and the gap is one."""
    bench, good, wrong = company(tmp_path, monkeypatch)
    deaths: list[Step] = []

    def die(reached: Step) -> None:
        if reached is step and not deaths:
            deaths.append(reached)
            raise Died

    listen(die)
    queue = Queue(bench)
    with pytest.raises(Died):
        await one_pass(queue)
    assert deaths == [step]
    if flushed:
        bench.services.state = LocalState(tmp_path / "fresh", "test", bench.clock)
    await live_on(bench)
    await settled(bench, good, wrong)


async def test_nobody_listens_in_production(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a listener the steps are passed and nothing happens."""
    bench, good, wrong = company(tmp_path, monkeypatch)
    await live_on(bench)
    await settled(bench, good, wrong)
