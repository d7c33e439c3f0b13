"""The log: one formatter for all, events of a closed list, no forged lines, no secrets."""

import io
import json
import logging
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from config.events import Event
from config.logs import configure_logging, context, get_logger
from config.redact import MASK
from config.render import as_text
from tests.support.logs import logging_as_before

SECRET = "open-sesame-5550100"


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    with logging_as_before():
        yield


class Out(io.StringIO):
    """Where the log goes, read back as lines."""

    def records(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.getvalue().splitlines()]

    def record(self) -> dict[str, Any]:
        (one,) = self.records()
        return one


def configured(*, json: bool = True, level: str = "debug", secrets: tuple[str, ...] = (SECRET,)) -> Out:
    """Set the process's log up and return where it goes."""
    out = Out()
    configure_logging(json=json, level=level, secrets=secrets, stream=out)
    return out


def test_an_event_is_a_line_with_its_fields() -> None:
    """One record of ours is one JSON object: time in UTC, level, event, logger, and the fields bound and given."""
    out = configured()
    get_logger(source="hq").bind(run=7).info(Event.RECORDING_ARCHIVED, bytes=5, key="v1/a.wav")
    record = out.record()
    assert record.pop("time").endswith("Z")
    assert record == {
        "level": "info",
        "event": "recording_archived",
        "logger": "callvault",
        "source": "hq",
        "run": 7,
        "bytes": 5,
        "key": "v1/a.wav",
    }


def test_each_level_has_its_method() -> None:
    """Debug to error are written with their own names, an exception as an error."""
    out = configured()
    log = get_logger()
    for method in (log.debug, log.info, log.warning, log.error, log.exception):
        method(Event.POLL_STARTED)
    assert [record["level"] for record in out.records()] == ["debug", "info", "warning", "error", "error"]
    assert not any("exception" in record for record in out.records())


@pytest.mark.parametrize("level", ["debug", "error"])
def test_an_unlisted_event_is_refused(level: str) -> None:
    """A name that is not in the closed list fails where it is logged, even where its level is off."""
    configured(level=level)
    with pytest.raises(TypeError, match=r"'something_happened' is not in config\.events"):
        get_logger().info("something_happened")  # type: ignore[arg-type]  # the point of the test


def test_every_event_says_what_it_means() -> None:
    """The names are lower-case words, and each stands above a sentence."""
    lines = Path(sys.modules["config.events"].__file__ or "").read_text().splitlines()
    for event in Event:
        at = lines.index(f'    {event.name} = "{event.value}"')
        assert event.value == event.name.lower()
        assert lines[at + 1].startswith('    """')
        assert lines[at + 1].endswith('."""')


def test_levels_below_are_left_out() -> None:
    """The level holds for ours and for libraries; an unknown one is refused by name."""
    out = configured(level="Warning")
    get_logger().info(Event.POLL_STARTED)
    logging.getLogger("celery").info("starting")
    get_logger().warning(Event.SOURCE_STOPPED)
    assert out.record()["event"] == "source_stopped"
    with pytest.raises(ValueError, match='"loud" is not a level'):
        configured(level="loud")


def test_context_is_carried_and_put_down() -> None:
    """Fields of a `with` block are on all of our records inside it and on none after it."""
    out = configured()
    with context(task="poll"):
        get_logger().info(Event.POLL_STARTED)
    get_logger().info(Event.POLL_FINISHED)
    assert [record.get("task") for record in out.records()] == ["poll", None]


def test_a_field_cannot_hide_the_records_own() -> None:
    """A field called like a part of the record is kept beside it."""
    out = configured()
    get_logger().info(Event.POLL_STARTED, level="high", time="noon", logger="tree")
    record = out.record()
    assert (record["level"], record["level_"], record["time_"], record["logger_"]) == ("info", "high", "noon", "tree")


@pytest.mark.parametrize("name", ["celery.worker", "kombu", "aiohttp.client", "asyncio", "anything.else"])
def test_libraries_go_the_same_way(name: str) -> None:
    """Records of the standard logging are `library` events, redacted, through the same stream, once."""
    own = io.StringIO()
    if name != "anything.else":  # those that set up a handler of their own are known by name
        logging.getLogger(name.partition(".")[0]).addHandler(logging.StreamHandler(own))
    out = configured()
    logging.getLogger(name).warning("lost %s, token=%s", f"redis://:{SECRET}@host/0", "abc")
    record = out.record()
    assert (record["event"], record["logger"], record["level"]) == ("library", name, "warning")
    assert record["message"] == "lost redis://***@host/0, token=***"
    assert own.getvalue() == ""


def test_structlog_itself_goes_the_same_way() -> None:
    """Whoever calls structlog directly is redacted and formatted alike."""
    out = configured()
    structlog.get_logger("theirs").info(f"said {SECRET}", password="x")
    record = out.record()
    assert (record["event"], record["password"]) == ("said ***", MASK)


def test_warnings_are_records() -> None:
    """A Python warning is a line of the log, not loose text in between."""
    out = configured()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(capture=False)
        logging.captureWarnings(capture=True)
        warnings.warn(f"old {SECRET}", UserWarning, stacklevel=1)
    assert out.record()["logger"] == "py.warnings"
    assert SECRET not in out.getvalue()


def test_configuring_again_replaces() -> None:
    """The last call counts; nothing is written twice."""
    first, second = configured(), configured()
    get_logger().info(Event.POLL_STARTED)
    assert first.getvalue() == ""
    assert second.record()["event"] == "poll_started"


def test_nothing_is_written_before_configuration(capfd: pytest.CaptureFixture[str]) -> None:
    """Until the process has said where its log goes, ours is silent: nothing unredacted slips out."""
    logging.getLogger().handlers[:] = []
    get_logger().error(Event.SOURCE_STOPPED, password=SECRET)
    assert capfd.readouterr() == ("", "")


def test_standard_error_is_where_the_log_goes(capfd: pytest.CaptureFixture[str]) -> None:
    """Standard output belongs to what a verb reports."""
    configure_logging(json=True, level="info", secrets=[])
    get_logger().info(Event.POLL_STARTED)
    out, err = capfd.readouterr()
    assert out == ""
    assert json.loads(err)["event"] == "poll_started"


def test_signed_requests_are_not_printed_at_debug() -> None:
    """Libraries that print credentials nobody configured stay at INFO, whatever the level."""
    out = configured()
    for name in ("botocore.auth", "boto3", "urllib3.connectionpool", "s3transfer", "amqp"):
        logging.getLogger(name).debug("StringToSign")
        logging.getLogger(name).info("found credentials")
    assert {record["message"] for record in out.records()} == {"found credentials"}


def failing() -> None:
    """Raise an error with a cause, secrets in both messages and one in a local variable."""
    token = "only-a-local-5550102"
    try:
        raise KeyError(f"https://u:{SECRET}@host/?token={token}")  # noqa: TRY301 (the traceback is the point)
    except KeyError as error:
        raise RuntimeError(f"gave up with {SECRET}") from error


@pytest.mark.parametrize("json", [True, False])
@pytest.mark.parametrize("ours", [True, False])
def test_tracebacks_tell_causes_and_no_secrets(*, json: bool, ours: bool) -> None:
    """A traceback names the errors and their causes, redacted, and no local variable; of libraries as of ours."""
    out = configured(json=json)
    try:
        failing()
    except RuntimeError as error:
        if ours:
            get_logger().exception(Event.BUG)
            get_logger().error(Event.BUG, exc_info=error)
        else:
            logging.getLogger("celery").exception("task failed")
            logging.getLogger("celery").error("task failed", exc_info=error)
    text = out.getvalue()
    assert text.count("RuntimeError: gave up with ***") == 2
    assert text.count("direct cause of the following exception") == 2
    assert SECRET not in text
    assert "only-a-local-5550102" not in text


def test_a_long_traceback_keeps_its_end() -> None:
    """Of a traceback beyond 8,192 characters the last are kept: they say what happened."""
    out = configured()
    logging.getLogger("x").error("failed", exc_info=ValueError("a" * 9000 + " end"))
    exception = out.record()["exception"]
    assert len(exception) == 8193
    assert exception.startswith("…")
    assert exception.endswith(" end")


def test_a_stack_can_be_asked_for() -> None:
    """`stack_info` is kept, redacted."""
    out = configured()
    logging.getLogger("x").info("here", stack_info=True)
    assert "test_a_stack_can_be_asked_for" in out.record()["stack"]


HOSTILE = "a\n2026-01-01T00:00:00Z info forged\r\x1b[31m\u2028\x85\u202eb\x00"


@pytest.mark.parametrize("json", [True, False])
def test_a_vendors_text_cannot_forge_a_line(*, json: bool) -> None:
    """Line ends, colours and turned writing in names, values, messages and errors are escaped: a record is a record."""
    out = configured(json=json)
    get_logger().info(Event.ROW_UNREADABLE, row=HOSTILE, rows=[HOSTILE], nested={HOSTILE: 1}, **{HOSTILE: 1})
    logging.getLogger(f"x{HOSTILE}").warning(HOSTILE)
    get_logger().error(Event.SOURCE_STOPPED, exc_info=ValueError(HOSTILE))
    text = out.getvalue()
    assert not any(c in text for c in "\r\x1b\u2028\x85\u202e\x00")
    own = [line for line in text.split("\n") if line and not line.startswith("    | ")]
    assert len(own) == 3
    assert not any(line.startswith("2026-01-01") for line in own)


def test_lines_for_people() -> None:
    """Without JSON a record is `time level event key=value`, quoted where it has blanks, tracebacks indented below."""
    record = {
        "time": "2026-03-05T12:00:00.000Z",
        "level": "warning",
        "event": "source_stopped",
        "source": "hq",
        "empty": "",
        "said": 'no "more"',
        "counts": {"listed": 1},
        "tries": 3,
        "exception": "Traceback\n  ValueError: x",
    }
    assert as_text(record) == (
        '2026-03-05T12:00:00.000Z warning  source_stopped source=hq empty="" said="no \\"more\\"" '
        'counts={"listed": 1} tries=3\n    | Traceback\n    |   ValueError: x'
    )


def test_fields_are_cut() -> None:
    """A field of a vendor's has 512 characters in the log at most."""
    out = configured()
    get_logger().info(Event.ROW_UNREADABLE, row="x" * 100_000)
    assert len(out.record()["row"]) == 513


@pytest.mark.parametrize("json", [True, False])
def test_a_record_that_cannot_be_written_is_not_printed_raw(capfd: pytest.CaptureFixture[str], *, json: bool) -> None:
    """Where formatting fails, the log says so and of whom; the standard library would print the arguments."""
    out = configured(json=json)
    logging.getLogger("careless").info("%d", SECRET)
    assert "log_failed" in out.getvalue()
    assert "careless" in out.getvalue()
    assert "TypeError" in out.getvalue()
    assert SECRET not in out.getvalue() + "".join(capfd.readouterr())


def test_a_broken_stream_is_let_go(capfd: pytest.CaptureFixture[str]) -> None:
    """When the reader of the log is gone, logging goes on without it and without noise."""

    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    configure_logging(json=True, level="info", secrets=[], stream=Gone())
    get_logger().info(Event.POLL_STARTED)
    assert capfd.readouterr() == ("", "")
