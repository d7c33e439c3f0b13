"""The tasks as a worker calls them: who is asked to do what, what is dropped, what a process keeps.

They are reached through their modules: pytest looks at every name of this one, and a task that is looked at before
there are settings stays half made.
"""

import asyncio
import logging
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kombu.exceptions import OperationalError

from config.load import ConfigError
from config.retention import LockMode, Period, Retention
from storage.errors import StoreRefused, StoreUnavailable
from storage.state import StateUnavailable
from tasks import archive as archive_module
from tasks import audit as audit_module
from tasks import backfill as backfill_module
from tasks import canary as canary_module
from tasks import expire as expire_module
from tasks import hold as hold_module
from tasks import housekeeping as housekeeping_module
from tasks import poll as poll_module
from tasks import process, send
from tasks import rollcall as rollcall_module
from tasks.app import app
from tasks.liveness import last_answer, last_song
from tasks.loop import Unfinished
from tests.support.settings import settings, source
from tests.support.valkey import Valkey
from worker.model import Window
from worker.runtime import Services


@pytest.fixture(autouse=True)
def _process(tmp_path: Path, valkey: Valkey, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Make this a worker process of an installation with two sources and a real broker."""
    valkey.flush()
    told = settings(tmp_path, source("hq"), source("branch"), url=valkey.url)
    monkeypatch.setattr(process, "_settings", told)
    app.finalize()
    yield
    process.close()


class Asked:
    """Stands for the work: notes what it was asked for, on which loop, with which services."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, module: Any, name: str) -> None:
        self.calls: list[dict[str, Any]] = []
        self.services: list[Services] = []
        self.loops: list[asyncio.AbstractEventLoop] = []
        self.error: Exception | None = None
        monkeypatch.setattr(module, name, self)

    async def __call__(self, services: Services, **words: Any) -> None:
        self.calls.append(words)
        self.services.append(services)
        self.loops.append(asyncio.get_running_loop())
        if self.error:
            raise self.error


def events(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    """Return what was logged as events."""
    return [dict(record.msg) for record in caplog.records if isinstance(record.msg, dict)]


def test_a_poll_is_carried_out_for_its_source(monkeypatch: pytest.MonkeyPatch) -> None:
    """The work gets the source's settings and ways to ask for more tasks."""
    asked = Asked(monkeypatch, poll_module, "poll_source")
    poll_module.poll("branch")
    assert asked.calls == [
        {"source": process.settings().source("branch"), "send": send.send_archive, "backfill": send.send_backfill}
    ]


def test_a_turn_of_expiry_is_taken_where_it_is_switched_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """By name of the machine, with a way to ask for the next turn; a worker that is told to delete nothing drops it."""
    asked = Asked(monkeypatch, expire_module, "scheduled")
    expire_module.expire()
    assert asked.calls == []
    assert "expire = false" in str(events(caplog))
    policy = Retention(LockMode.GOVERNANCE, default=Period(months=84), expire=True)
    monkeypatch.setattr(process, "_settings", process.settings().model_copy(update={"retention": policy}))
    expire_module.expire()
    assert asked.calls[0]["send"] == send.send_expire
    assert asked.calls[0]["by"].startswith("schedule, worker on ")


def test_a_batch_is_carried_out_for_its_source(monkeypatch: pytest.MonkeyPatch) -> None:
    """The work gets the batch's name; its contents it finds in the state."""
    asked = Asked(monkeypatch, archive_module, "archive_batch")
    archive_module.archive("hq", "poll-0123456789abcdef.12")
    assert asked.calls == [
        {
            "source": process.settings().source("hq"),
            "batch": "poll-0123456789abcdef.12",
            "send": send.send_archive,
            "again": send.send_again,
        }
    ]


def test_a_backfill_is_carried_out_for_its_span(monkeypatch: pytest.MonkeyPatch) -> None:
    """The words of the message become a window of aware times."""
    asked = Asked(monkeypatch, backfill_module, "backfill_source")
    backfill_module.backfill("hq", "2026-01-01T00:00:00+00:00", "2026-02-01T00:00:00+00:00")
    window = asked.calls[0]["window"]
    assert isinstance(window, Window)
    assert (window.end - window.start).days == 31
    assert asked.calls[0]["source"].name == "hq"


def test_an_audit_is_carried_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The work gets a way to ask for its next turn."""
    asked = Asked(monkeypatch, audit_module, "scheduled")
    audit_module.audit()
    assert asked.calls == [{"send": send.send_audit}]


def test_housekeeping_is_carried_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The daily task tidies up with the process's services."""
    asked = Asked(monkeypatch, housekeeping_module, "clean_up")
    housekeeping_module.housekeeping()
    assert asked.calls == [{}]


def test_matters_are_carried_through(monkeypatch: pytest.MonkeyPatch) -> None:
    """A turn of the one that is named, and the daily round; both ask for turns in the same way."""
    asked, round_ = Asked(monkeypatch, hold_module, "turn"), Asked(monkeypatch, hold_module, "due")
    hold_module.hold("smith")
    hold_module.holds()
    assert (asked.calls, round_.calls) == ([{"name": "smith", "send": send.send_hold}], [{"send": send.send_hold}])


def test_a_call_is_answered_for_the_worker_that_took_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """With what the call is named and what its worker does not hear; a message is input, and its name cut short."""
    monkeypatch.setattr(rollcall_module, "worker_id", lambda: "0123456789abcdef")
    rollcall_module.rollcall.push_request(deaf=["poll"])
    rollcall_module.rollcall.run(7 * "call " * 7)
    rollcall_module.rollcall.pop_request()
    answer = process.perform(lambda services: last_answer(services.state, "0123456789abcdef"))
    assert answer
    assert (len(answer.call), answer.deaf) == (40, ("poll",))
    assert process.perform(lambda services: last_song(services.state)) is None, "a scheduler's canary is another proof"


def test_a_call_to_no_worker_is_not_answered(valkey: Valkey) -> None:
    """A worker that could not take a place has no name to answer under."""
    rollcall_module.rollcall("call")
    with valkey.client() as asked:
        assert asked.dbsize() == 0


def test_a_failure_fits_into_the_pipe_to_a_process_that_no_longer_reads() -> None:
    """What led to it stays behind: a worker that is told to stop while its broker is away would never end."""

    async def fail(_: Any) -> None:
        try:
            raise ConnectionError("refused" * 20_000)  # noqa: TRY301 - what led to it is the point
        except ConnectionError as error:
            raise StateUnavailable("the state server does not answer") from error

    with pytest.raises(StateUnavailable, match="does not answer") as caught:
        process.perform(fail)
    assert len("".join(traceback.format_exception(caught.value))) < 10_000


def test_a_canary_sings() -> None:
    """Running the task leaves the proof."""
    canary_module.canary()
    song = process.perform(lambda services: last_song(services.state))
    assert song is not None


@pytest.mark.parametrize("name", ["unknown", "", "https://pbx.example.net/", 7, None, ["hq"], {"hq": 1}])
def test_what_is_not_configured_is_dropped(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, name: Any
) -> None:
    """A message is input: a source nobody configured, of whatever type, is logged and nothing is done."""
    works = [
        Asked(monkeypatch, poll_module, "poll_source"),
        Asked(monkeypatch, archive_module, "archive_batch"),
        Asked(monkeypatch, backfill_module, "backfill_source"),
    ]
    with caplog.at_level(logging.INFO, logger="callvault"):
        poll_module.poll(name)
        archive_module.archive(name, "poll-1.0")
        backfill_module.backfill(name, "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z")
    assert [work.calls for work in works] == [[], [], []]
    assert [event["event"] for event in events(caplog)] == ["task_dropped"] * 3


@pytest.mark.parametrize("batch", ["", "a b", "../x", "x" * 201, "https://host/", "a\nb", None, 7.5e300, ["poll-1.0"]])
def test_what_is_no_name_of_a_batch_is_dropped(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, batch: Any
) -> None:
    """Names of batches have one form; anything else never reaches a key of the state."""
    asked = Asked(monkeypatch, archive_module, "archive_batch")
    with caplog.at_level(logging.INFO, logger="callvault"):
        archive_module.archive("hq", batch)
    assert asked.calls == []
    assert [event["event"] for event in events(caplog)] == ["task_dropped"]


@pytest.mark.parametrize(
    ("start", "end"),
    [
        ("2026-01-01T00:00:00", "2026-02-01T00:00:00"),
        ("2026-01-01T00:00:00Z", "2026-02-01T00:00:00"),
        ("2026-02-01T00:00:00Z", "2026-01-01T00:00:00Z"),
        ("yesterday", "today"),
        (None, 5),
    ],
)
def test_what_is_no_span_is_dropped(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, start: Any, end: Any
) -> None:
    """Times without an offset, in the wrong order, or none at all are not guessed at."""
    asked = Asked(monkeypatch, backfill_module, "backfill_source")
    with caplog.at_level(logging.INFO, logger="callvault"):
        backfill_module.backfill("hq", start, end)
    assert asked.calls == []
    assert [event["event"] for event in events(caplog)] == ["task_dropped"]


def test_tasks_share_loop_and_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was opened for one task serves the next, on the same loop; a closed process opens afresh."""
    asked = Asked(monkeypatch, poll_module, "poll_source")
    poll_module.poll("hq")
    poll_module.poll("hq")
    assert asked.services[0] is asked.services[1]
    assert asked.loops[0] is asked.loops[1]
    process.close()
    process.close()
    poll_module.poll("hq")
    assert asked.services[2] is not asked.services[0]


@pytest.mark.parametrize("error", [StoreUnavailable("the bucket does not answer"), Unfinished("cut short")])
def test_trouble_that_passes_is_one_line_in_the_log(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    """Expected trouble is told in a sentence and raised, and Celery knows that it needs no traceback."""
    asked = Asked(monkeypatch, housekeeping_module, "clean_up")
    asked.error = error
    with caplog.at_level(logging.INFO, logger="callvault"), pytest.raises(type(error)):
        housekeeping_module.housekeeping()
    assert [(event["event"], event["detail"]) for event in events(caplog)] == [("task_unfinished", str(error))]
    assert isinstance(error, housekeeping_module.housekeeping.throws)


def test_a_bucket_that_cannot_be_addressed_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """When opening the services fails nothing half open is kept: the next task opens them."""
    asked = Asked(monkeypatch, housekeeping_module, "clean_up")
    with monkeypatch.context() as patch:

        def refuse(*_: object) -> None:
            raise StoreRefused("no region is known")

        patch.setattr(process, "S3Store", refuse)
        with pytest.raises(StoreRefused):
            housekeeping_module.housekeeping()
        process.close()
    housekeeping_module.housekeeping()
    assert len(asked.calls) == 1


def test_a_process_without_settings_reads_the_file_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file that CALLVAULT_CONFIG names is read at the first question, and mistakes in it are raised."""
    monkeypatch.setattr(process, "_settings", None)
    with pytest.raises(ConfigError, match="CALLVAULT_CONFIG"):
        process.settings()
    file = tmp_path / "callvault.toml"
    file.write_text(
        '[archive]\nbucket = "acme-calls"\n[broker]\nurl = { env = "BROKER" }\n[[sources]]\nname = "hq"\n'
        'vendor = "xivo"\nurl = "https://pbx.example.net"\ntimezone = "Europe/Paris"\ntoken = { env = "BROKER" }\n'
    )
    monkeypatch.setenv("CALLVAULT_CONFIG", str(file))
    monkeypatch.setenv("BROKER", "redis://127.0.0.1:1/0")
    assert process.settings().sources[0].name == "hq"
    file.unlink()
    assert process.settings().sources[0].name == "hq"


def test_a_broker_that_takes_nothing_is_told_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asking for a task while the broker is away is trouble that passes, not a bug with a traceback."""

    def away(*_: Any) -> None:
        raise OperationalError("redis://:hush@h refused")

    monkeypatch.setattr(app, "send_task", away)
    with pytest.raises(StateUnavailable, match=r"the broker does not take callvault\.poll") as caught:
        send.send_poll("hq")
    assert "hush" not in str(caught.value)
    with pytest.raises(StateUnavailable, match=r"callvault\.audit"):
        send.send_audit()
