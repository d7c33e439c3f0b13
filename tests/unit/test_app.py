"""The Celery application: how it is told to behave, and what it does when signals come."""

import ast
import inspect
import itertools
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest
import structlog
from celery import Celery, signals

from tasks import app as app_module
from tasks import celery_settings as told
from tasks import loop, names, process, send
from tasks.app import Loader, app
from tasks.hearing import Hearing
from tasks.stopping import FLAG
from tests.support.clock import FakeClock
from tests.support.settings import NOBODY, settings, source
from tests.support.valkey import Valkey

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _configured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give this process settings, so that the application finds some whenever it asks for the first time."""
    monkeypatch.setattr(process, "_settings", settings(tmp_path))


@pytest.fixture
def fresh() -> Iterator[Celery]:
    """Return an application that has not asked for its settings yet."""
    app = Celery("fresh", loader=Loader, set_as_current=False)
    yield app
    app.close()


def test_importing_it_reads_nothing_and_connects_to_nothing(tmp_path: Path) -> None:
    """Without a configuration the import works; no loop is made, nothing is connected to, no settings are read."""
    script = (
        "import asyncio, sys\n"
        "seen = []\n"
        "sys.addaudithook(lambda name, args: seen.append(args) if name == 'socket.connect' else None)\n"
        "asyncio.new_event_loop = asyncio.Runner = asyncio.run = None\n"
        "from tasks.app import app\n"
        "assert not app.configured and not app.finalized, 'settings were read'\n"
        "assert not seen, seen\n"
        "try: app.conf.broker_url\n"
        "except Exception as error: print(error)\n"
    )
    environ = {name: value for name, value in os.environ.items() if not name.startswith("CALLVAULT")}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "CALLVAULT_CONFIG" in done.stdout, "the first question for settings says what is missing"


def test_messages_may_be_delivered_twice_and_are_never_lost_early(fresh: Celery) -> None:
    """Tasks acknowledge late, go back when their process dies, and nothing is fetched before it is worked on."""
    conf = fresh.conf
    assert conf.task_acks_late
    assert conf.task_reject_on_worker_lost
    assert conf.worker_prefetch_multiplier == 1
    assert conf.worker_cancel_long_running_tasks_on_connection_loss


def test_the_visibility_timeout_is_the_same_in_its_three_places(fresh: Celery) -> None:
    """The shortest of them would count."""
    conf = fresh.conf
    assert (
        conf.broker_transport_options["visibility_timeout"]
        == conf.result_backend_transport_options["visibility_timeout"]
        == conf.visibility_timeout
        == 3600
    )


def test_no_task_can_outlive_its_message(fresh: Celery) -> None:
    """Own deadline, soft limit, hard limit, half the visibility timeout: each well below the next."""
    conf = fresh.conf
    limits = [loop.DEADLINE, conf.task_soft_time_limit, conf.task_time_limit, conf.visibility_timeout / 2]
    assert limits == sorted(limits)
    assert all(later - sooner >= 60 for sooner, later in itertools.pairwise(limits))


def test_only_json_is_read_and_nothing_is_kept(fresh: Celery) -> None:
    """Whoever can write to the broker cannot run code; no result is stored anywhere."""
    conf = fresh.conf
    assert conf.accept_content == conf.result_accept_content == ["json"]
    assert conf.task_serializer == conf.result_serializer == conf.event_serializer == "json"
    assert conf.task_ignore_result
    assert conf.result_backend is None


def test_a_worker_consumes_all_queues_and_makes_no_others(fresh: Celery) -> None:
    """One worker without options serves polls, batches and the canary."""
    assert set(fresh.amqp.queues) == {"default", "poll", "archive"}
    assert not fresh.conf.task_create_missing_queues
    route = fresh.amqp.router.route
    assert route({}, names.POLL)["queue"].name == "poll"
    assert route({}, names.BACKFILL)["queue"].name == "poll"
    assert route({}, names.ARCHIVE)["queue"].name == "archive"
    assert route({}, names.CANARY)["queue"].name == "default"


class Starting:
    """Stands for Celery's worker while it starts."""

    hostname = "w@here"


class Heard:
    """Stands for Celery's consumer, with the queues it listens to."""

    def __init__(self, app: Celery) -> None:
        self.task_consumer = self
        self.queues = list(app.amqp.queues.consume_from.values())


def deaf(hearing: Hearing, consumer: Heard, task: str = names.ROLLCALL) -> object:
    """Return what a task is told on its way to the pool."""
    request = SimpleNamespace(name=task, request_dict={"deaf": ["forged"]})
    hearing.mark(consumer, request)
    return request.request_dict["deaf"]


@pytest.mark.parametrize("url", [NOBODY, "amqp://:hush@h//"])
def test_a_worker_listens_to_a_queue_of_its_own_and_knows_what_it_hears(
    fresh: Celery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    """A call is told which of the queues the worker began with are lost; other tasks are told nothing."""
    one = settings(tmp_path, url=url, state_url=NOBODY)
    monkeypatch.setattr(process, "_settings", one)
    fresh.amqp.queues.select(
        [next(name for name in fresh.amqp.queues if name.endswith(end)) for end in ("poll", "archive")]
    )
    hearing = Hearing()
    hearing.open(fresh, one, "0123456789abcdef")
    own = told.own_queue(one, "0123456789abcdef").name
    assert own in fresh.amqp.queues.consume_from
    assert own.startswith("callvault." if "amqp" in url else "worker.")
    assert fresh.amqp.queues[own].exchange.name == "", "bound to nothing, so that nothing is left of it"
    assert fresh.amqp.queues[own].expires == 600
    consumer = Heard(fresh)
    assert deaf(hearing, consumer) == []
    consumer.queues.pop(0)
    assert deaf(hearing, consumer) == ["poll"], "the default queue was not asked for at the start"
    assert deaf(hearing, consumer, names.POLL) == ["forged"]


def test_two_archives_on_one_rabbitmq_do_not_share_queues(tmp_path: Path, clock: FakeClock) -> None:
    """RabbitMQ's queues carry the archive's name, as Redis's keys do; no option of Redis reaches it."""
    rabbit = settings(tmp_path, url="amqp://:hush@h//", state_url=NOBODY)
    conf = told.celery_settings(rabbit, clock.now())
    prefix = f"callvault.{rabbit.archive.namespace}."
    assert [queue.name for queue in conf["task_queues"]] == [prefix + name for name in ("default", "poll", "archive")]
    assert conf["task_default_queue"] == prefix + "default"
    assert conf["task_routes"][names.ARCHIVE] == {"queue": prefix + "archive"}
    assert conf["broker_transport_options"] == {"confirm_publish": True}


def test_there_is_a_process_more_than_sources(tmp_path: Path, clock: FakeClock) -> None:
    """A source that hangs leaves processes for the others."""
    many = settings(tmp_path, *(source(f"s{n}") for n in range(5)))
    assert told.celery_settings(many, clock.now())["worker_concurrency"] == 6


def test_no_registered_task_is_a_coroutine_function() -> None:
    """Celery would call one, get a coroutine and count that as success."""
    app.loader.import_default_modules()
    registered = {name: task for name, task in app.tasks.items() if name.startswith("callvault.")}
    assert set(registered) == set(names.TASKS)
    assert not [name for name, task in registered.items() if inspect.iscoroutinefunction(task.run)]


def test_every_task_is_a_few_lines() -> None:
    """A task unpacks, calls and maps; the work is elsewhere."""
    for module in app.conf.imports:
        tree = ast.parse((ROOT / module.replace(".", "/")).with_suffix(".py").read_text())
        for function in (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)):
            assert (function.end_lineno or 0) - function.lineno < 15, f"{module}.{function.name}"


def test_every_setting_is_one_that_celery_knows(fresh: Celery) -> None:
    """A misspelt setting would be ignored in silence; the one Celery reads by itself is named here."""
    from celery.app.defaults import DEFAULTS

    ours = told.celery_settings(process.settings(), datetime.now(UTC))
    assert set(ours) - set(DEFAULTS) == {"visibility_timeout"}


def test_tasks_are_asked_for_by_name_with_names_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """What goes into the queue are names of sources, batches and matters, or two times."""
    sent: list[tuple[str, tuple[str, ...]]] = []
    monkeypatch.setattr(app, "send_task", lambda name, args: sent.append((name, args)))
    send.send_poll("hq")
    send.send_archive("hq", "poll-1.0")
    send.send_again("hq", {})
    send.send_again("hq", {"from": "a", "to": "b"})
    send.send_expire()
    send.send_audit()
    send.send_hold("smith-v-acme")
    assert sent == [
        (names.POLL, ("hq",)),
        (names.ARCHIVE, ("hq", "poll-1.0")),
        (names.POLL, ("hq",)),
        (names.BACKFILL, ("hq", "a", "b")),
        (names.EXPIRE, ()),
        (names.AUDIT, ()),
        (names.HOLD, ("smith-v-acme",)),
    ]


@pytest.fixture
def _logging_as_before() -> Iterator[None]:
    root, level, ours = logging.getLogger(), logging.getLogger().level, structlog.get_config()
    handlers = root.handlers[:]
    yield
    root.handlers[:], root.level = handlers, level
    logging.captureWarnings(capture=False)
    structlog.configure(**ours)


@pytest.mark.usefixtures("_logging_as_before")
def test_celery_logs_through_our_formatter(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Celery's set-up of logging is replaced by ours, which knows the secrets and the wanted level."""
    monkeypatch.setenv("CALLVAULT_LOG_LEVEL", "warning")
    signals.setup_logging.send(sender=None)
    logging.getLogger("celery.worker").info("not wanted")
    logging.getLogger("celery.worker").warning("the password is hush, at %s", NOBODY)
    written = capsys.readouterr().err
    assert "the password is ***" in written
    assert "not wanted" not in written
    assert "hush" not in written


def test_a_stopping_worker_tells_its_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    """The flag is made when the worker starts, before the pool forks, and goes up when it is told to stop."""
    seen: list[str] = []
    monkeypatch.setattr(process, "take_place", seen.append)
    monkeypatch.setattr(FLAG, "arm", lambda: seen.append("armed"))
    monkeypatch.setattr(FLAG, "hoist", lambda: seen.append("up"))
    monkeypatch.setattr(process, "close", lambda: seen.append("closed"))
    signals.worker_init.send(sender=Starting())
    signals.worker_shutting_down.send(sender=None)
    signals.worker_process_shutdown.send(sender=None)
    assert seen == ["armed", "w@here", "up", "closed"]


def test_a_worker_that_starts_takes_its_place_and_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own queue is opened under the id of its place, and calls are marked from then on; without a place neither."""
    seen: list[object] = []
    monkeypatch.setattr(app_module._hearing, "open", lambda *words: seen.append(words))
    monkeypatch.setattr(app_module._hearing, "mark", lambda *words: seen.append(words))
    for place in (None, "0123456789abcdef"):
        monkeypatch.setattr(process, "take_place", lambda _, place=place: place)
        signals.worker_init.send(sender=Starting())
    signals.task_received.send(sender="consumer", request="request")
    assert seen == [(app, process.settings(), "0123456789abcdef"), ("consumer", "request")]


def test_log_lines_of_a_task_say_which_it_is() -> None:
    """Name and id are bound for the task's time and gone afterwards."""
    task = app.tasks[names.CANARY]
    structlog.contextvars.bind_contextvars(left="over")
    signals.task_prerun.send(sender=task, task=task, task_id="1-2")
    assert structlog.contextvars.get_contextvars() == {"task": names.CANARY, "task_id": "1-2", "pid": os.getpid()}
    signals.task_postrun.send(sender=task, task=task, task_id="1-2")
    assert structlog.contextvars.get_contextvars() == {}


def test_worker_and_scheduler_say_that_they_are_there(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, valkey: Valkey
) -> None:
    """Start and end of a worker and the start of a scheduler are events."""
    monkeypatch.setattr(process, "_settings", settings(tmp_path, url=valkey.url))
    with caplog.at_level(logging.INFO, logger="callvault"):
        signals.worker_ready.send(sender=None)
        signals.beat_init.send(sender=None)
        signals.worker_shutdown.send(sender=None)
    assert [record.msg["event"] for record in caplog.records if isinstance(record.msg, dict)] == [
        "worker_started",
        "schedule_started",
        "worker_stopped",
    ]
