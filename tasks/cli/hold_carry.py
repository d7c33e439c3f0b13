"""Having a matter carried through the archive for `callvault hold`: in this process, or by the workers."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from config.clock import SystemClock
from config.load import VARIABLE
from config.settings import Settings
from storage.state import StateUnavailable
from storage.state_redis import RedisState
from storage.swept import Swept
from tasks import broker
from tasks.send import send_hold
from worker.carrying import note_of
from worker.runtime import Services
from worker.sweep import sweep

_LOOK_EVERY = 1.0


@dataclass(frozen=True, slots=True)
class How:
    """Where the work is done, and who looks on."""

    settings: Settings
    config: Path
    here: bool
    detach: bool
    quiet: bool

    @property
    def by_workers(self) -> bool:
        """Whether the workers do it: they do where a broker is configured, which all of them share."""
        return self.detach or (self.settings.broker is not None and not self.here)


async def carry(how: How, services: Services, name: str) -> Swept | None:
    """Carry a matter through; None where nobody waits for it. StoreError, StateUnavailable, BrokerError."""
    with _shown(name, quiet=how.quiet) as told:
        if how.by_workers:
            return await _by_workers(how, name, told)
        return await sweep(services, name, told=told)


async def _by_workers(how: How, name: str, told: Callable[[Swept], Awaitable[None]]) -> Swept | None:
    os.environ[VARIABLE] = str(how.config.absolute())  # where the Celery application looks
    settings = broker.with_broker(how.settings)
    state = RedisState(broker.state_url(settings), settings.archive.namespace, SystemClock())
    try:
        await state.note(note_of(name), {"swept": "", "done": "", "error": ""})
        await asyncio.to_thread(send_hold, name)
        while not how.detach:
            noted = await state.noted(note_of(name))
            if not noted:
                raise StateUnavailable("the broker has forgotten the work (was it emptied?)")
            if noted["error"]:
                raise StateUnavailable(noted["error"])
            if noted["swept"]:
                swept = Swept.model_validate_json(noted["swept"])
                await told(swept)
                if noted["done"]:
                    return swept
            await asyncio.sleep(_LOOK_EVERY)
        return None
    finally:
        await state.aclose()


@contextmanager
def _shown(name: str, *, quiet: bool) -> Iterator[Callable[[Swept], Awaitable[None]]]:
    console = Console(stderr=True, quiet=quiet)
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(name, total=None)

        async def told(swept: Swept) -> None:
            look = "" if swept.look == 1 else ", looking again for what came meanwhile"
            figures = f"{name}: {swept.recordings} recordings, {swept.held} held, {swept.freed} freed{look}"
            bar.update(task, description=figures, completed=swept.days, total=swept.of_days)

        yield told
