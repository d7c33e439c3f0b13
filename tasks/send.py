"""Asking for tasks: what goes into the queue. Names and times only, never an address, a credential or a record.

Tasks are asked for by name, so this knows none of them; any worker carries them out.
"""

from kombu.exceptions import OperationalError

from storage.state import StateUnavailable
from tasks.app import app
from tasks.names import ARCHIVE, AUDIT, BACKFILL, EXPIRE, HOLD, POLL


def _send(task: str, *words: str) -> None:
    """Put a task into its queue. StateUnavailable when the broker does not take it: the next poll makes up for it."""
    try:
        app.send_task(task, words)
    except OperationalError as error:
        raise StateUnavailable(f"the broker does not take {task}: see that it runs ({type(error).__name__})") from error


def send_poll(source: str) -> None:
    """Have the source polled now, whatever the clock says."""
    _send(POLL, source)


def send_archive(source: str, batch: str) -> None:
    """Have a batch archived."""
    _send(ARCHIVE, source, batch)


def send_backfill(source: str, start: str, end: str) -> None:
    """Have a span looked at, its ends in ISO 8601 with offset."""
    _send(BACKFILL, source, start, end)


def send_again(source: str, words: dict[str, str]) -> None:
    """Have the next look taken that a finished chain asks for: at a span, where its words name one, else a poll."""
    if words:
        send_backfill(source, words["from"], words["to"])
    else:
        send_poll(source)


def send_expire() -> None:
    """Have the next turn of the day's expiry run taken."""
    _send(EXPIRE)


def send_audit() -> None:
    """Have the next turn of the week's audit taken."""
    _send(AUDIT)


def send_hold(name: str) -> None:
    """Have the next turn of carrying a matter through the archive taken."""
    _send(HOLD, name)
