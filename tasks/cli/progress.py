"""Showing work in progress: bars on a terminal, nothing (the log has it) where there is none."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from worker.model import Recording
from worker.outcome import Outcome
from worker.passes import Watcher


class Bars:
    """A bar for each source: recordings done of those known to be due; and one for all bytes."""

    def __init__(self, console: Console) -> None:
        self.shown = Progress(
            TextColumn("{task.description:<20}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[size]:>10}  {task.fields[rate]:>12}"),
            TimeRemainingColumn(),
            console=console,
        )
        self._tasks: dict[str, TaskID] = {}
        self._bytes: dict[str, int] = {}

    def planned(self, source: str, count: int) -> None:
        """Make the source's bar, or make it longer."""
        if source not in self._tasks:
            self._tasks[source] = self.shown.add_task(source, total=0, size="", rate="")
            self._bytes[source] = 0
        task = self.shown.tasks[self._tasks[source]]
        self.shown.update(task.id, total=(task.total or 0) + count)

    def settled(self, source: str, recording: Recording, outcome: Outcome) -> None:  # noqa: ARG002 - of `Watcher`
        """Move the source's bar on."""
        self._bytes[source] += outcome.bytes
        task = self.shown.tasks[self._tasks[source]]
        rate = self._bytes[source] / task.elapsed if task.elapsed else 0.0
        self.shown.update(task.id, advance=1, size=human(self._bytes[source]), rate=f"{human(rate)}/s")


def human(size: float) -> str:
    """Write a number of bytes for people, in powers of 1,000."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


@contextmanager
def watching(*, shown: bool) -> Iterator[Watcher | None]:
    """Show bars on standard error while the block runs, if they are wanted; without them the log has it all."""
    if not shown:
        yield None
        return
    bars = Bars(Console(stderr=True))
    with bars.shown:
        yield bars
