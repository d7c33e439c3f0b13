"""What a worker's main process hears: a queue of its own beside the shared ones, and whether it still hears them all.

A worker that has lost the shared queues and kept its own would answer every call and do no work. So each call takes
along which queues its worker should listen to and does not; `tasks.rollcall` writes that into the answer.
"""

from typing import Any

from celery import Celery
from kombu import Exchange

from config.settings import Settings
from tasks.broker import broker_url, queue_prefix
from tasks.celery_settings import own_queue
from tasks.names import ROLLCALL

DEAF = "deaf"
"""Where a call, on its way from the main process to one of the pool, carries the names of the queues not heard."""


class Hearing:
    """The ears of one worker."""

    def __init__(self) -> None:
        self._wanted: frozenset[str] = frozenset()
        self._prefix = ""

    def open(self, app: Celery[Any], settings: Settings, worker: str) -> None:
        """Add the worker's own queue. What it listens to at this moment is what it should hear from now on."""
        queues = app.amqp.queues
        self._prefix = queue_prefix(broker_url(settings), settings.archive.namespace)
        self._wanted = frozenset(queues.consume_from)
        own = own_queue(settings, worker)
        queues.select_add(own)
        own.exchange = Exchange("")  # Celery has given it its default one, and would bind it there

    def mark(self, consumer: Any, request: Any) -> None:
        """Write into a call, before it goes to the pool, which queues its worker does not listen to."""
        if request.name == ROLLCALL:
            heard = {queue.name for queue in consumer.task_consumer.queues}
            lost = sorted(name.removeprefix(self._prefix) for name in self._wanted - heard)
            request.request_dict[DEAF] = lost
