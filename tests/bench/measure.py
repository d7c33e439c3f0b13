"""What a program costs: its time, the processor time of all its processes, and the memory it needs at most."""

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.request import Request, urlopen

from tests.bench.server import Source
from tests.bench.site import environment

ROOT = Path(__file__).parents[2]
_TICK = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Cost:
    """Seconds of time, seconds of processor time, bytes of memory; and the server's share of a core meanwhile."""

    wall: float
    cpu: float
    peak: int
    server: float = 0.0

    def less(self, start: "Cost") -> "Cost":
        """Return the cost without that of starting and ending; memory is not less for it."""
        return Cost(max(self.wall - start.wall, 1e-6), max(self.cpu - start.cpu, 1e-6), self.peak, self.server)


class Stand:
    """The server that everybody talks to, in a process of its own. A context manager."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.bench.server"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment(),
            cwd=ROOT,
        )
        assert self._process.stdout is not None
        self.url = f"http://127.0.0.1:{int(self._process.stdout.readline())}"

    def ask(self, what: str, told: object = None) -> Any:
        """Ask the server itself: `plan`, `stats`, `forget` or `arrivals`."""
        request = Request(f"{self.url}/control/{what}", json.dumps(told).encode())
        with urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def plan(self, sources: Mapping[str, Source]) -> None:
        """Set the stage anew: these sources, an empty bucket, nothing counted."""
        self.ask("plan", {name: asdict(source) for name, source in sources.items()})

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(10)


def timed(stand: Stand, command: Sequence[str], environ: Mapping[str, str], folder: Path) -> Cost:
    """Run a command to its end; RuntimeError with its last words where it fails."""
    words = folder / "words"
    before = stand.ask("stats")["cpu"]
    with words.open("wb") as out:
        began = time.perf_counter()
        process = subprocess.Popen(command, env=environ, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        with _watched(process.pid) as peak:
            _, status, used = os.wait4(process.pid, 0)
            wall = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if status:
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}:\n{words.read_text()[-3000:]}")
    served = stand.ask("stats")["cpu"] - before
    return Cost(wall, used.ru_utime + used.ru_stime, max(peak), served / wall)


@contextlib.contextmanager
def _watched(pid: int) -> Iterator[list[int]]:
    """Read a process's own peak of memory while it lives: what `wait4` tells includes ours, from the fork."""
    peaks, over = [0], threading.Event()

    def look() -> None:
        while not over.wait(0.05):
            peaks.append(peak_of([pid]))

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        yield peaks
    finally:
        over.set()
        watcher.join()


def tree(pid: int) -> list[int]:
    """Return a process and all its descendants."""
    found = [pid]
    for task in (Path("/proc") / str(pid) / "task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in task.read_text().split():
                found += tree(int(child))
    return found


def cpu_of(pids: Iterable[int]) -> float:
    """Return the processor time that processes have used, children that ended included."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            total += sum(map(int, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:15]))
    return total / _TICK


def forget_peaks(pids: Iterable[int]) -> None:
    """Have processes' peaks of memory counted from now on."""
    for pid in pids:
        with contextlib.suppress(OSError):
            Path(f"/proc/{pid}/clear_refs").write_text("5")


def peak_of(pids: Iterable[int]) -> int:
    """Return the sum of the processes' own peaks, in bytes."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/status").read_text().splitlines():
                if line.startswith("VmHWM"):
                    total += int(line.split()[1]) * 1024
    return total
