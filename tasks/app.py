"""The Celery application: `celery -A tasks.app worker` and `celery -A tasks.app beat`, with CALLVAULT_CONFIG set.

Importing this reads nothing and connects to nothing; the configuration is read when Celery first asks for it.
How Celery is configured is `tasks.celery_settings`; what a process keeps open is `tasks.process`.
"""

import os
import sys
from datetime import UTC, datetime
from typing import Any

import structlog
from celery import Celery, Task, signals
from celery.loaders.base import BaseLoader

from config.events import Event
from config.logs import configure_logging, get_logger
from tasks import fitness, process, transport
from tasks.celery_settings import celery_settings
from tasks.hearing import Hearing
from tasks.stopping import FLAG

LOG_LEVEL = "CALLVAULT_LOG_LEVEL"
"""The variable that says how much is logged: debug, info, warning or error."""

log = get_logger()
_hearing = Hearing()


class Loader(BaseLoader):
    """Answers Celery's question for its settings with ours, instead of looking for a module of settings."""

    def read_configuration(self, env: str = "") -> dict[str, Any]:
        """Return Celery's settings; the variable `env` is not asked. ConfigError, BrokerError."""
        del env
        transport.register()
        return celery_settings(process.settings(), datetime.now(UTC))


app: Celery[Task[Any, Any]] = Celery("callvault", loader=Loader)


@signals.setup_logging.connect
def _log_our_way(**_: object) -> None:
    """Send Celery's records through our formatter and redaction. That somebody listens turns its own set-up off."""
    level = os.environ.get(LOG_LEVEL, "info")
    configure_logging(json=not sys.stderr.isatty(), level=level, secrets=process.settings().secrets())


@signals.worker_init.connect
def _arm(**_: object) -> None:
    """Make the flag that pool processes inherit, before the first of them is forked."""
    FLAG.arm()


@signals.worker_init.connect
def _enrol(sender: Any = None, **_: object) -> None:
    """Enter this worker where `callvault health` looks, and have it listen to its own queue, too."""
    if worker := process.take_place(sender.hostname):
        _hearing.open(app, process.settings(), worker)


@signals.task_received.connect
def _mark_calls(sender: Any = None, request: Any = None, **_: object) -> None:
    _hearing.mark(sender, request)


@signals.worker_shutting_down.connect
def _tell_the_pool(**_: object) -> None:
    """Let running tasks know: a warm shutdown would wait for their whole downloads."""
    FLAG.hoist()


@signals.worker_ready.connect
def _say_ready(**_: object) -> None:
    """Begin, unless the servers that have just been reached would lose work, or the bucket cannot lock."""
    fitness.end_if_unfit(process.settings())
    fitness.end_if_unlockable(process.settings())
    log.info(Event.WORKER_STARTED, processes=process.settings().worker_processes)


@signals.worker_shutdown.connect
def _say_goodbye(**_: object) -> None:
    log.info(Event.WORKER_STOPPED)


@signals.beat_init.connect
def _say_scheduling(**_: object) -> None:
    """Begin, unless the servers, where they can be reached, would lose work."""
    fitness.end_if_unfit(process.settings())
    log.info(Event.SCHEDULE_STARTED, entries=len(process.settings().sources))


@signals.worker_process_shutdown.connect
def _close_connections(**_: object) -> None:
    """Close what this pool process kept open, and abort what a SIGTERM interrupted."""
    process.close()


@signals.task_prerun.connect
def _bind(task_id: str = "", task: Any = None, **_: object) -> None:
    """Say in every log line of a task which one it is."""
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(task=task.name, task_id=task_id, pid=os.getpid())


@signals.task_postrun.connect
def _unbind(**_: object) -> None:
    structlog.contextvars.clear_contextvars()
