"""Logging: ours and everybody else's through one formatter, which takes secrets out before anything is written.

`get_logger()` is what callvault's own code logs with; its events are the closed list of `config.events`.
Nothing is written before `configure_logging`, which the entry points call once per process.
"""

import logging
import sys
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from typing import Any, TextIO, cast

import structlog
from structlog.contextvars import bound_contextvars, get_contextvars, merge_contextvars

from config.events import Event
from config.redact import Redactor
from config.render import as_json, as_text

ROOT = "callvault"
_LONGEST_TRACEBACK = 8192  # characters, the last of them
_OWN = frozenset({"time", "level", "event", "logger"})

# At DEBUG these print signed headers, the string to sign and whole frames, with credentials that no
# configuration told us of (those of the AWS chain); their INFO says all that helps.
_TALKATIVE = ("amqp", "boto3", "botocore", "s3transfer", "urllib3")

_Record = MutableMapping[str, Any]

_LEARNED = 64  # session tokens that are remembered for redaction; a source's last few are those that can turn up


def get_logger(**fields: object) -> "Log":
    """Return a logger with fields that each of its records carries."""
    logging.getLogger(ROOT).addHandler(_SILENT)  # without it, warnings before configuration go to stderr unredacted
    return Log(fields)


_SILENT = logging.NullHandler()


class Log:
    """Reports events of the closed list, with fields. `exc_info=True` or an exception adds a traceback."""

    def __init__(self, fields: Mapping[str, object]) -> None:
        self._fields = dict(fields)
        self._log = logging.getLogger(ROOT)

    def bind(self, **fields: object) -> "Log":
        """Return a logger with more fields."""
        return Log({**self._fields, **fields})

    def debug(self, event: Event, **fields: object) -> None:
        """Report what only the search for a fault needs."""
        self._report(logging.DEBUG, event, fields)

    def info(self, event: Event, **fields: object) -> None:
        """Report what went as planned."""
        self._report(logging.INFO, event, fields)

    def warning(self, event: Event, **fields: object) -> None:
        """Report what somebody may want to look at."""
        self._report(logging.WARNING, event, fields)

    def error(self, event: Event, **fields: object) -> None:
        """Report what somebody must look at."""
        self._report(logging.ERROR, event, fields)

    def exception(self, event: Event, **fields: object) -> None:
        """Report an error with the traceback of the exception that is being handled."""
        self._report(logging.ERROR, event, {"exc_info": True, **fields})

    def _report(self, level: int, event: Event, fields: Mapping[str, object]) -> None:
        """Hand a record to the standard library as structlog does, at a third of its cost: one is written a recording.

        An event that is not of the closed list is refused first of all, so that a level that is off hides nothing.
        """
        if not isinstance(event, Event):
            raise TypeError(f"{event!r} is not in config.events: add it there, with a sentence, or use one that is")
        if self._log.isEnabledFor(level):
            told = {**get_contextvars(), **self._fields, **fields, "event": event}
            marks = {"_logger": self._log, "_name": ""}  # by which the formatter knows records of structlog's kind
            self._log.handle(self._log.makeRecord(ROOT, level, "", 0, told, (), None, extra=marks))


def context(**fields: object) -> AbstractContextManager[None]:
    """Add fields to every record of ours within the `with` block, in this task or thread alone."""
    return bound_contextvars(**fields)


def configure_logging(*, json: bool, level: str, secrets: Iterable[str], stream: TextIO | None = None) -> None:
    """Send every record of the process to `stream` (standard error) through one redacting formatter.

    `level` is a name such as `info`; ValueError for another. May be called again: the last call counts.
    """
    number = logging.getLevelNamesMapping().get(level.upper())
    if number is None:
        raise ValueError(f'"{level}" is not a level; write debug, info, warning, error or critical')
    handler = _Handler(stream or sys.stderr)
    _secrets.tell(secrets)
    handler.setFormatter(_formatter(as_json if json else as_text))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(number)
    for name in ("celery", "kombu", "aiohttp", "asyncio", "py.warnings"):
        library = logging.getLogger(name)
        library.handlers[:] = []  # set up by others, they would write past the formatter
        library.propagate = True
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(max(number, logging.INFO))
    logging.captureWarnings(capture=True)
    # for whoever uses structlog directly
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            merge_contextvars,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
    )


class _Secrets:
    """What the formatter takes out: the configuration's secrets, and those that were learned since."""

    def __init__(self) -> None:
        self.redactor = Redactor()
        self._told: tuple[str, ...] = ()
        self._learned: deque[str] = deque(maxlen=_LEARNED)

    def tell(self, secrets: Iterable[str]) -> None:
        """Replace the configuration's."""
        self._told = tuple(secrets)
        self.redactor = Redactor((*self._told, *self._learned))

    def learn(self, secret: str) -> None:
        """Add one; of many the oldest is forgotten."""
        if secret not in self._learned:
            self._learned.append(secret)
            self.tell(self._told)


_secrets = _Secrets()


def hide(secret: str) -> None:
    """Take a secret that was learned meanwhile, such as a session token, out of every record from now on."""
    if secret:
        _secrets.learn(secret)


class _Handler(logging.StreamHandler[TextIO]):
    """Says that a record could not be written, where the standard handler prints it raw, secrets included."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 (logging calls it so)
        """Write `log_failed` in place of the record; nothing when that fails too, as on a closed pipe."""
        if isinstance(record.msg, dict) and record.msg.get("event") is Event.LOG_FAILED:
            return
        error = sys.exc_info()[0]
        told = {"event": Event.LOG_FAILED, "of": record.name, "error": error.__name__ if error else None}
        marks = {"_logger": None, "_name": "error"}  # by which structlog knows its own records
        self.emit(logging.makeLogRecord({"name": ROOT, "levelname": "ERROR", "msg": told, **marks}))


def _formatter(render: Callable[[Mapping[str, object]], str]) -> logging.Formatter:
    def redacted(_logger: object, _method: str, told: _Record) -> str:
        redactor = _secrets.redactor
        record: logging.LogRecord = told.pop("_record")
        ours = told.pop("_from_structlog")
        event = told.pop("event")
        exc_info, stack = told.pop("exc_info", None), told.pop("stack_info", None)
        name = event.value if isinstance(event, Event) else redactor.text(str(event))
        shown: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC)
            .isoformat(timespec="milliseconds")
            .replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "event": name if ours else Event.LIBRARY.value,
            "logger": record.name,
        }
        if not ours:
            shown["message"] = name
        shown |= {_free(name): redactor.field(name, value) for name, value in told.items()}
        if trace := _traceback(exc_info):
            shown["exception"] = redactor.tail(trace, _LONGEST_TRACEBACK)
        if stack:
            shown["stack"] = redactor.tail(str(stack), _LONGEST_TRACEBACK)
        return render(shown)

    class Formatter(structlog.stdlib.ProcessorFormatter):
        """Spares our own records the copy that structlog makes, because others might format the record too."""

        def format(self, record: logging.LogRecord) -> str:
            if "_logger" in record.__dict__:
                return redacted(None, "", {**cast("_Record", record.msg), "_record": record, "_from_structlog": True})
            return super().format(record)

    return Formatter(processors=[redacted])


def _free(name: str) -> str:
    """Return a field's name, changed where it would hide one of the record's own."""
    return f"{name}_" if name in _OWN else name


def _traceback(exc_info: object) -> str:
    """Return a traceback with causes and groups, and without local variables: they hold tokens and signed addresses."""
    match exc_info:
        case BaseException():
            error: BaseException | None = exc_info
        case (_, BaseException() as error, _):
            pass
        case True:
            error = sys.exc_info()[1]
        case _:
            return ""
    return "".join(traceback.format_exception(error)).rstrip("\n") if error else ""
