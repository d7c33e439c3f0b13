"""Whose turn it is to destroy: one expiry run at a time, one a day by the clock, cut into turns that a task can take.

A run that is not over when its turn is, or whose process dies, is gone on with in the next turn, within what is left of
its limit. What is known of it lies in the disposable state: lost, a new run begins.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import timedelta

from config.events import Event
from config.logs import get_logger
from storage.state import Lease, StateUnavailable
from storage.state_records import moment_or_none
from worker.expiry import Expired, GoOn, expire
from worker.runtime import Services

LEASE = 60.0
"""Seconds after which a run whose process died no longer keeps others from beginning."""
TURN_SECONDS = 1200.0
"""After this time a turn begins no further batch: well below the deadline of a task."""
NOTE = "expiry"
"""Name of the note about the latest scheduled run: begun, left, done, and its figures."""
_RENEW_EVERY = 15.0
_AGAIN = timedelta(hours=12)  # a scheduler that is started many times a day asks each time, and the limit is a day's

log = get_logger()


async def scheduled(services: Services, by: str, send: Callable[[], None]) -> Expired | None:
    """Take one turn of the day's run; `send()` asks for the next one. None where it is nobody's turn.

    StoreError, with the run left to the next turn.
    """
    async with alone(services) as holds:
        told = await services.state.noted(NOTE)
        now, begun = services.clock.now(), moment_or_none(told.get("begun"))
        if holds is None or (told.get("done") and begun is not None and now - begun < _AGAIN):
            log.info(Event.EXPIRY_SKIPPED)
            return None
        limit = services.settings.retention.expire_at_most
        if told and not told.get("done") and told.get("left", "").isdigit():
            limit = min(limit, int(told["left"]))
        else:
            begun = now
        ends = services.clock.monotonic() + TURN_SECONDS

        async def note(report: Expired, done: str = "") -> None:
            await services.state.note(
                NOTE,
                {
                    "begun": (begun or now).isoformat(),
                    "left": str(max(0, limit - report.destroyed)),
                    "done": done,
                    "destroyed": str(report.destroyed),
                    "error": "; ".join(report.errors)[:500],
                },
            )

        await note(Expired())
        report = await expire(
            services,
            by=by,
            limit=limit,
            go_on=lambda: holds() and services.clock.monotonic() < ends,
            told=note,
        )
        again = report.more and not report.limited
        await note(report, "" if again else "yes")
    if again:
        send()
    return report


@asynccontextmanager
async def alone(services: Services) -> AsyncIterator[GoOn | None]:
    """Be the only expiry run for the block; None where another is. What is yielded tells whether that still holds."""
    lease = await services.state.lease("expiry", LEASE)
    if lease is None:
        yield None
        return
    holds = True

    async def renew() -> None:
        nonlocal holds
        while holds:
            await asyncio.sleep(_RENEW_EVERY)
            holds = await _renewed(lease)

    renewing = asyncio.create_task(renew())
    try:
        yield lambda: holds
    finally:
        renewing.cancel()
        with suppress(StateUnavailable):
            await asyncio.shield(lease.release())


async def _renewed(lease: Lease) -> bool:
    try:
        return await lease.renew()
    except StateUnavailable:
        return False
