"""Asking for tasks: what goes into the queue. Names and times only, never an address, a credential or a record.

Tasks are asked for by name, so this knows none of them; any worker carries them out.
"""

from tasks.app import app
from tasks.names import ARCHIVE, BACKFILL, POLL


def send_poll(source: str) -> None:
    """Have the source polled now, whatever the clock says."""
    app.send_task(POLL, (source,))


def send_archive(source: str, batch: str) -> None:
    """Have a batch archived."""
    app.send_task(ARCHIVE, (source, batch))


def send_backfill(source: str, start: str, end: str) -> None:
    """Have a span looked at, its ends in ISO 8601 with offset."""
    app.send_task(BACKFILL, (source, start, end))


def send_again(source: str, words: dict[str, str]) -> None:
    """Have the next look taken that a finished chain asks for: at a span, where its words name one, else a poll."""
    if words:
        send_backfill(source, words["from"], words["to"])
    else:
        send_poll(source)
