"""How Celery is told to behave: one pure function from our settings to Celery's.

The rule behind it: a message may be delivered twice or be lost, and neither may matter. So tasks acknowledge
late, are bounded in time far below the broker's patience, and return nothing. Names of the wire are in
`tasks.names`, what depends on the kind of broker is in `tasks.broker`.
"""

from datetime import datetime
from typing import Any

from kombu import Exchange, Queue

from config.settings import Settings
from tasks.broker import VISIBILITY_TIMEOUT, broker_url, celery_url, queue_prefix, tls, transport_options
from tasks.loop import DEADLINE
from tasks.names import ARCHIVE, ARCHIVE_QUEUE, BACKFILL, DEFAULT_QUEUE, OWN_QUEUE, POLL, POLL_QUEUE, QUEUES
from tasks.schedule import beat_schedule

SOFT_LIMIT = 1640
HARD_LIMIT = 1700
"""Seconds after which Celery interrupts a task and then kills its process: the second and third line behind the
deadline of `tasks.loop`. A task that outlived the visibility timeout would run twice at once."""

_OWN_QUEUE_LASTS = 600.0  # seconds without a listener; a broker that restarts is back before

assert DEADLINE < SOFT_LIMIT < HARD_LIMIT < VISIBILITY_TIMEOUT / 2  # noqa: S101 - relations between constants


def celery_settings(settings: Settings, now: datetime) -> dict[str, Any]:
    """Return Celery's settings. The settings are those of `tasks.broker.with_broker`; BrokerError otherwise."""
    url, namespace = broker_url(settings), settings.archive.namespace
    prefix = queue_prefix(url, namespace)
    poll = {"queue": prefix + POLL_QUEUE}
    return {
        "broker_url": celery_url(url),
        "broker_use_ssl": tls(url),
        "broker_transport_options": transport_options(url, namespace),
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,  # a broker that is down for an hour is waited for
        # no result backend: the bucket is the result. The option is set all the same, for whoever adds one
        "task_ignore_result": True,
        "result_backend_transport_options": {"visibility_timeout": VISIBILITY_TIMEOUT},
        "visibility_timeout": VISIBILITY_TIMEOUT,
        "accept_content": ["json"],
        "result_accept_content": ["json"],
        "task_serializer": "json",
        "result_serializer": "json",
        "event_serializer": "json",
        "task_acks_late": True,
        "task_reject_on_worker_lost": True,
        "task_soft_time_limit": SOFT_LIMIT,
        "task_time_limit": HARD_LIMIT,
        "task_queues": [_queue(name, prefix) for name in QUEUES],
        "task_default_queue": prefix + DEFAULT_QUEUE,
        "task_create_missing_queues": False,
        "task_routes": {POLL: poll, BACKFILL: poll, ARCHIVE: {"queue": prefix + ARCHIVE_QUEUE}},
        "worker_concurrency": settings.worker_processes,
        "worker_prefetch_multiplier": 1,
        "worker_max_tasks_per_child": 200,
        "worker_max_memory_per_child": 400_000,  # KiB
        "worker_cancel_long_running_tasks_on_connection_loss": True,
        "worker_soft_shutdown_timeout": 10.0,
        "worker_hijack_root_logger": False,
        "worker_redirect_stdouts": False,
        "worker_send_task_events": False,
        "imports": (
            "tasks.poll",
            "tasks.archive",
            "tasks.backfill",
            "tasks.canary",
            "tasks.hold",
            "tasks.housekeeping",
            "tasks.rollcall",
            "tasks.expire",
            "tasks.audit",
        ),
        "enable_utc": True,
        "timezone": "UTC",
        "beat_schedule": beat_schedule(settings, now),
        # in memory: what was due while no scheduler ran is made up for at its start, and any number may run
        "beat_scheduler": "celery.beat:Scheduler",
        "beat_max_loop_interval": 30,
    }


def own_queue(settings: Settings, worker: str) -> Queue:
    """Return the queue of one worker, where `tasks.calling` asks it whether it works.

    Of a worker that is gone nothing stays: RabbitMQ removes a queue nobody listens to, and in Redis there is no more
    of it than the message that waits, since it is bound to no exchange.
    """
    name = f"{queue_prefix(broker_url(settings), settings.archive.namespace)}{OWN_QUEUE}{worker}"
    return Queue(name, Exchange(""), routing_key=name, expires=_OWN_QUEUE_LASTS)


def _queue(name: str, prefix: str) -> Queue:
    return Queue(prefix + name, Exchange(prefix + name), routing_key=prefix + name)
