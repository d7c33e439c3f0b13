"""Where sync meets async: the one event loop of a worker process, kept from task to task.

Celery calls plain functions; the work is coroutines whose connections must outlive a task. The loop is made at
the first task, so always after the fork, and closed with the process. How the process hears that the worker is
stopping is `tasks.stopping`; what is kept open on the loop is `tasks.process`.
"""

import asyncio
import contextlib
import contextvars
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from tasks import stopping

T = TypeVar("T")

DEADLINE = 1580.0
"""Seconds after which work is cancelled, well before Celery's soft limit, so that cleaning up can finish."""
GRACE = 8.0
"""Seconds that work may go on once the worker is stopping; multipart uploads are aborted after that."""
_WIND_UP = 10.0  # seconds for closing connections when the process ends

Work = Callable[[], Coroutine[Any, Any, T]]


class Unfinished(Exception):
    """Work was cut short, and cleanly: its deadline came or the worker is stopping. The next poll makes up for it."""


class Loop:
    """One event loop, made at its first use. `deadline` and `grace` are seconds."""

    def __init__(self, stop: stopping.StopFlag, *, deadline: float = DEADLINE, grace: float = GRACE) -> None:
        self._stop = stop
        self._deadline = deadline
        self._grace = grace
        self._runner: asyncio.Runner | None = None

    def run(self, work: Work[T]) -> T:
        """Run the work to its end and return what it returns; what it raises is raised.

        Unfinished when it had to be cancelled: at its deadline, or when the grace was over after the worker was
        told to stop.
        """
        if self._runner is None:
            self._runner = asyncio.Runner(loop_factory=loop_factory())
        # the runner would go on using the log context of the task that made it
        return self._runner.run(self._bounded(work), context=contextvars.copy_context())

    async def _bounded(self, work: Work[T]) -> T:
        loop = asyncio.get_running_loop()
        ends = loop.time() + self._deadline
        limit = asyncio.timeout_at(ends)
        told = False

        def hurry() -> None:
            nonlocal told
            self._stop.unwatch(loop)
            if not limit.expired():  # else it is being cancelled already
                told = True
                limit.reschedule(min(ends, loop.time() + self._grace))

        try:
            async with limit:
                self._stop.watch(loop, hurry)
                return await work()
        except TimeoutError:
            if not limit.expired():
                raise
            reason = "the worker is stopping" if told else f"it did not end within {self._deadline:.0f} s"
            raise Unfinished(f"cut short: {reason}; the next poll takes up what is left") from None
        finally:
            self._stop.unwatch(loop)

    def close(self, last: Callable[[], Awaitable[None]] | None = None) -> None:
        """Cancel what still runs, wait for its cleaning up, await `last`, and close the loop. May be called twice.

        A SIGTERM to a pool process raises SystemExit out of `run`; the coroutine it left behind ends here.
        """
        runner, self._runner = self._runner, None
        if runner is None:
            return
        with runner, contextlib.suppress(TimeoutError):
            runner.run(_wind_up(last))


async def _wind_up(last: Callable[[], Awaitable[None]] | None) -> None:
    async with asyncio.timeout(_WIND_UP):
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        if last:
            await last()


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return how to make the fastest event loop there is here; None for Python's own."""
    try:
        import uvloop  # noqa: PLC0415 - not to be had on every platform
    except ImportError:
        return None
    return uvloop.new_event_loop
