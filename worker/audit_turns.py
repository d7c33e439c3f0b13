"""The week's audit by the clock: one at a time, once a week, cut into turns that a task can take.

An audit that is not over when its turn is, or whose process dies, is gone on with in the next turn from where it was.
What is known of it lies in the disposable state: lost, it begins anew.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, fields
from datetime import timedelta

from config.events import Event
from config.logs import get_logger
from storage.state import State
from storage.state_records import moment_or_none
from worker.audit import audit
from worker.drift import Audited
from worker.runtime import Services
from worker.turns import TURN_SECONDS, alone

NOTE = "audit"
"""Name of the note about the latest scheduled audit: begun, done, and its figures."""
_AGAIN = timedelta(days=6, hours=12)  # asked for every day, so that one that was missed is made up for soon
_KEPT = 8 * 86400.0  # seconds
_SAVE_EVERY = 30.0  # seconds; a death costs that much of the way

log = get_logger()


async def scheduled(services: Services, send: Callable[[], None]) -> Audited | None:
    """Take one turn of the week's audit; `send()` asks for the next one. None where it is nobody's turn.

    StoreError, with the rest left to the next turn.
    """
    state, clock = services.state, services.clock
    async with alone(services, "audit") as holds:
        told = await state.noted(NOTE)
        now, begun = clock.now(), moment_or_none(told.get("begun"))
        if holds is None or (told.get("done") and begun is not None and now - begun < _AGAIN):
            log.info(Event.AUDIT_SKIPPED)
            return None
        before = None if told.get("done") else await _left(state)
        begun = begun if before and begun else now
        ends = clock.monotonic() + TURN_SECONDS
        saved = clock.monotonic()

        async def told_now(report: Audited) -> None:
            nonlocal saved
            if clock.monotonic() - saved >= _SAVE_EVERY:
                saved = clock.monotonic()
                await save(report)

        async def save(report: Audited) -> None:
            await state.stash(NOTE, json.dumps(asdict(report)), _KEPT)
            figures = {name: str(value) for name, value in report.figures().items()}
            done = "yes" if report.done else ""
            await state.note(NOTE, {"begun": begun.isoformat(), "at": report.at, "done": done, **figures})

        report = await audit(services, before, go_on=lambda: holds() and clock.monotonic() < ends, told=told_now)
        await save(report)
    if not report.done:
        send()
    return report


async def _left(state: State) -> Audited | None:
    """Return the audit that was not done; None where it is not known, or another version's."""
    try:
        told = json.loads(await state.unstash(NOTE) or "null")
        if set(told) != {field.name for field in fields(Audited)}:
            return None
        report = Audited(**told)
        numbers = (
            report.objects,
            report.versions,
            report.well,
            report.extended,
            report.held,
            *report.reported.values(),
        )
        plain = all(isinstance(number, int) for number in numbers) and report.findings == list(report.findings)
        return report if plain and report.at == str(report.at) else None
    except (ValueError, TypeError, AttributeError, RecursionError):
        return None
