"""Asks the workers of this machine whether they work: a call to each one's own queue, and its answer.

A call that was not taken is replaced by the next one, so that never more than one waits. Who works here is
`tasks.roster`, who answers `tasks.rollcall`, what an answer is `tasks.liveness`.
"""

import asyncio
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from celery import Celery
from kombu import Connection
from kombu.exceptions import OperationalError

from config.clock import Clock
from config.settings import Settings
from storage.state import State
from tasks.broker import brief_connection
from tasks.celery_settings import own_queue
from tasks.liveness import FRESH, Answer, last_answer
from tasks.names import ROLLCALL
from tasks.roster import Worker

PATIENCE = 8.0
"""Seconds an idle worker may take for its answer; it needs a fraction of one."""
_LOOK_EVERY = 0.1
_EXPIRES = 300.0  # seconds; an answer to an older call would be no use to anybody


@dataclass(frozen=True, slots=True)
class Heard:
    """What was heard of a worker: its last sign of life, if any, and whether that came while it was being asked."""

    answer: Answer | None
    prompt: bool


async def call(
    settings: Settings, state: State, clock: Clock, workers: Sequence[Worker], patience: float | None = None
) -> list[Heard]:
    """Call each worker and return what is heard of each.

    A sign of life that is still fresh will do, else an answer is waited for, for `PATIENCE` or as many seconds as
    told. OperationalError when the broker takes no calls, StateUnavailable when answers cannot be read. The settings
    are those of `tasks.broker.with_broker`.
    """
    before = [await last_answer(state, worker.id) for worker in workers]
    await asyncio.to_thread(_send, settings, workers)
    wait = PATIENCE if patience is None else patience
    return await asyncio.gather(
        *(_hear(state, clock, worker, last, wait) for worker, last in zip(workers, before, strict=True))
    )


async def _hear(state: State, clock: Clock, worker: Worker, before: Answer | None, patience: float) -> Heard:
    if before and not before.deaf and clock.now() - before.at <= FRESH:
        return Heard(before, prompt=False)
    ends = time.monotonic() + patience  # it is another process that takes the time, and it knows no clock of ours
    while time.monotonic() < ends:
        await asyncio.sleep(_LOOK_EVERY)
        if (answer := await last_answer(state, worker.id)) != before:
            return Heard(answer, prompt=True)
    return Heard(before, prompt=False)


def _send(settings: Settings, workers: Sequence[Worker]) -> None:
    with Celery("callvault-calls", set_as_current=False) as app, brief_connection(settings) as connection:
        app.conf.update(task_serializer="json", task_ignore_result=True)
        connection.ensure_connection(max_retries=1, interval_start=0, timeout=int(PATIENCE / 2))
        try:
            for worker in workers:
                _replace(app, connection, settings, worker)
        except connection.connection_errors as error:
            raise OperationalError(str(error)) from error


def _replace(app: Celery[Any], connection: Connection, settings: Settings, worker: Worker) -> None:
    queue = own_queue(settings, worker.id)
    try:
        with connection.channel() as channel:
            queue(channel).purge()
    except connection.channel_errors:
        return  # RabbitMQ has no such queue: the worker is not listening yet, or not any more
    app.send_task(
        ROLLCALL,
        (uuid.uuid4().hex,),
        connection=connection,
        queue=queue,  # type: ignore[arg-type]  # a queue is as good as its name, says Celery, and needs no list
        declare=[],  # a queue is the business of the one who listens
        expires=_EXPIRES,
        retry=False,
        ignore_result=True,
    )
