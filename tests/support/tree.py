"""A process and all its children, watched from outside: how much memory they need at most."""

import subprocess
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil


class Tree:
    """A started command. As a context manager it is watched while it runs and is gone afterwards.

    `peak` is the largest sum of resident memory over the whole tree, in bytes, as sampled; `bound` is the sum
    of each process's own peak as the kernel kept it, which no sample can miss.
    """

    def __init__(self, command: Sequence[str], environ: Mapping[str, str], output: Path) -> None:
        self._output = output.open("ab")
        self.process = subprocess.Popen(command, env=environ, stdout=self._output, stderr=self._output)
        self.peak = 0
        self._high: dict[int, int] = {}
        self._over = threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)

    @property
    def bound(self) -> int:
        return sum(self._high.values())

    def pids(self) -> list[psutil.Process]:
        try:
            root = psutil.Process(self.process.pid)
            return [root, *root.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def process_children(self) -> list[psutil.Process]:
        """Return what the command itself started."""
        return psutil.Process(self.process.pid).children()

    def _watch(self) -> None:
        while not self._over.wait(0.05):
            total = 0
            for process in self.pids():
                try:
                    total += process.memory_info().rss
                    status = Path(f"/proc/{process.pid}/status").read_text()
                except (psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):
                    continue
                high = [line for line in status.splitlines() if line.startswith("VmHWM")]
                if high:
                    self._high[process.pid] = int(high[0].split()[1]) * 1024
            self.peak = max(self.peak, total)

    def __enter__(self) -> Self:
        self._watcher.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        family = self.pids()
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            for process in family:
                process.kill()
        self._over.set()
        self._watcher.join()
        self._output.close()
