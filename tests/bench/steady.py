"""A worker at a steady load: how long a recording waits, and what a source that stalls does to the others."""

import time
from collections.abc import Callable
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from tests.bench.contenders import Crew
from tests.bench.measure import Stand
from tests.bench.server import Source
from tests.bench.site import SOURCE, Work
from tests.bench.table import lines

_EVERY = 5.0  # seconds between polls: a schedule's least is a minute, which would take an hour to measure
_PER_SECOND = 20
_SECONDS = 1  # how long the calls last
_PATIENCE = 20.0
_GOOD, _STALLING = ("one", "two", "three"), "stalling"


def latency(stand: Stand, folder: Path, say: Callable[[str], None], intervals: int) -> None:
    """Measure from "listed as complete" to "the sidecar is in the bucket"."""
    with Crew(folder, stand, {SOURCE: {"settle": "0s"}}, 2) as crew:
        crew.forget()
        began = time.time()
        source = Source(int(began), 1 / _PER_SECOND, 10**6, seconds=_SECONDS, live=True)
        stand.plan({SOURCE: source})
        for turn in range(1, intervals + 2):
            time.sleep(max(0.0, began + turn * _EVERY - time.time()))
            crew.poll(SOURCE)
        time.sleep(_EVERY / 2)
        arrived = stand.ask("arrivals")["arrived"]
    waits = []
    for key, at in arrived:
        listed = source.start(int(key.removesuffix(".json").rpartition(".")[2])) + _SECONDS
        if listed >= began + _EVERY:  # what came before the first poll waited for it alone
            waits.append((at - listed) / _EVERY)
    cuts = quantiles(waits or [0.0, 0.0], n=100)
    say(f"from listed as complete to its sidecar in the bucket, in poll intervals; {_PER_SECOND} recordings a second,")
    say(f"a poll every {_EVERY:g} s, `settle` 0 (whatever it is comes on top); {len(waits)} recordings")
    figures = [f"{wait:.2f}" for wait in (cuts[49], cuts[98], max(waits, default=0.0))]
    lines(("", "p50", "p99", "most"), [("latency / interval", *figures)], say)


def stall(stand: Stand, folder: Path, say: Callable[[str], None], count: int, rounds: int) -> None:
    """Measure three sources by themselves, and beside a fourth whose downloads never end."""
    rates: dict[str, list[float]] = {"alone": [], "beside": []}
    keys: dict[str, dict[str, Any]] = {name: {} for name in (*_GOOD, _STALLING)}
    with (
        Crew(folder / "alone", stand, keys, len(keys) + 1) as alone,
        Crew(folder / "beside", stand, keys, len(keys) + 1) as beside,
    ):
        for turn in range(rounds):
            for crew, found in zip((alone, beside), rates.values(), strict=True):
                work = Work.of(stand.url, count, 48_000)
                crew.forget(busy=crew is beside and turn > 0)
                sources = {name: work.source() for name in _GOOD}
                stand.plan(sources | {_STALLING: Source(work.first, 10, 400, stalls=True)})
                if crew is beside and turn == 0:
                    crew.poll(_STALLING)
                    _wait(lambda: stand.ask("stats")["asked"].get("pbx stalled", 0))
                found.append(len(_GOOD) * count / crew.archive(len(_GOOD) * count, _GOOD).wall)
    of = median(b / a for a, b in zip(*rates.values(), strict=True))
    say(f"three sources with {count} recordings of 48 KB each, five processes; medians of {rounds} rounds")
    rows = [("by themselves", median(rates["alone"]), 1.0), ("beside one that stalls", median(rates["beside"]), of)]
    lines(("", "rec/s", "of their rate"), [(what, f"{rate:.0f}", f"{of:.2f}") for what, rate, of in rows], say)


def _wait(condition: Callable[[], object]) -> None:
    ends = time.monotonic() + _PATIENCE
    while not condition() and time.monotonic() < ends:
        time.sleep(0.02)
