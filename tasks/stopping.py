"""How the processes of a worker's pool hear that the worker is stopping.

Celery's warm shutdown waits for running tasks and tells them nothing, and a download may take minutes. The flag
is a pipe made before the pool forks: one byte, never read, and every process finds its end readable. Raising it
takes no lock, so a signal handler may do it, and a process killed at any instruction cannot leave it stuck, as
it could a `multiprocessing.Event`. Who acts on it is `tasks.loop`.
"""

import asyncio
import os
from collections.abc import Callable


class StopFlag:
    """Raised once, seen by all processes forked after `arm`. Without `arm` it is never seen."""

    def __init__(self) -> None:
        self._ends: tuple[int, int] | None = None

    def arm(self) -> None:
        """Make the pipe. Call it in the parent, before the fork; later calls do nothing."""
        if self._ends is None:
            self._ends = os.pipe()

    def hoist(self) -> None:
        """Tell all processes to stop. Safe in a signal handler."""
        if self._ends is not None:
            os.write(self._ends[1], b"!")

    def watch(self, loop: asyncio.AbstractEventLoop, told: Callable[[], None]) -> None:
        """Call `told` from the loop as soon as the flag is up, at once when it is already; `unwatch` ends that."""
        if self._ends is not None:
            loop.add_reader(self._ends[0], told)

    def unwatch(self, loop: asyncio.AbstractEventLoop) -> None:
        """Stop watching; does nothing when nobody watches."""
        if self._ends is not None:
            loop.remove_reader(self._ends[0])

    def close(self) -> None:
        """Give the pipe back."""
        ends, self._ends = self._ends, None
        for end in ends or ():
            os.close(end)


FLAG = StopFlag()
"""This worker's flag: armed by `tasks.app` when a worker starts."""
