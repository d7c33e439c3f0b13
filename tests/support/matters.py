"""A workbench whose bucket can hold, matters at hand, and what is held there."""

from pathlib import Path
from typing import Any

import pytest

from config.retention import Retention
from storage.holds import Hold, Scope, Step
from storage.memory import MemoryStore
from tests.support.bench import NOW, Bench, make_bench
from tests.support.clock import FakeClock
from worker import placing
from worker.model import Recording
from worker.outcome import Fate
from worker.pipeline import archive_one

FIVE_MIB = 5 * 1024 * 1024


def make(folder: Path, retention: Retention | None = None, **more: Any) -> Bench:
    """Return a workbench whose bucket can lock and hold; one clock for all of it."""
    clock = FakeClock(NOW)
    store = more.pop("store", None) or MemoryStore(object_lock=True, clock=clock)
    bench = make_bench(folder, store=store, retention=retention, part_bytes=FIVE_MIB)
    bench.services.clock = bench.services.matters._clock = bench.clock = clock
    return bench


def step(bench: Bench, reason: str = "dispute") -> Step:
    """Return an act of now."""
    return Step(at=bench.clock.now(), by="ann@office", reason=reason)


async def place(bench: Bench, name: str = "smith", **scope: Any) -> Hold:
    """Place a matter; without a scope, over everything of hq."""
    return await placing.place(bench.services, name, Scope(**(scope or {"source": "hq"})), step(bench))


async def release(bench: Bench, name: str = "smith") -> Hold:
    """Release it."""
    return await placing.release(bench.services, name, step(bench, "settled"))


async def archive(bench: Bench, *recordings: Recording) -> None:
    """Archive recordings, each of which must go well."""
    for recording in recordings:
        outcome = await archive_one(bench.services, bench.desk, recording, NOW)
        assert outcome.fate is Fate.ARCHIVED, outcome


def held(bench: Bench, words: str = "/source=") -> dict[str, list[bool]]:
    """Return the legal hold of every version of what is about recordings, by the end of its key."""
    return {
        key.rpartition("/")[2]: [version.legal_hold for version in found]
        for key, found in bench.store.versions_of.items()
        if words in key
    }


def counted(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list that grows with every listing."""
    looks: list[str] = []
    real = bench.store.objects

    def listing(prefix: str, **more: Any) -> Any:
        looks.append(prefix)
        return real(prefix, **more)

    monkeypatch.setattr(bench.store, "objects", listing)
    return looks
