"""The task `backfill`: list a past span and have it archived. The work is `worker.polling`."""

from datetime import datetime
from functools import partial

from tasks.app import app
from tasks.names import BACKFILL
from tasks.process import EXPECTED, configured, dropped, perform
from tasks.send import send_archive
from worker.model import Window
from worker.polling import backfill as backfill_source


@app.task(name=BACKFILL, throws=EXPECTED)
def backfill(source: str, start: str, end: str) -> None:
    """Take up the span of call start times from `start` to `end`, ISO 8601 with offset; dropped when it is none."""
    window = _span(start, end)
    if window is None:
        dropped(source, "the span is not two times in ISO 8601 with their offset, the earlier first")
    elif found := configured(source):
        perform(partial(backfill_source, source=found, window=window, send=send_archive))


def _span(start: object, end: object) -> Window | None:
    try:
        window = Window(datetime.fromisoformat(str(start)), datetime.fromisoformat(str(end)))
        return window if window.start.utcoffset() is not None and window.start < window.end else None
    except (ValueError, TypeError):  # TypeError: one of the two has no offset
        return None
