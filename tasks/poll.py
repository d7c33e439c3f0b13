"""The task `poll`: find what is due at one source and have it archived. The work is `worker.polling`."""

from functools import partial

from tasks.app import app
from tasks.names import POLL
from tasks.process import EXPECTED, configured, perform
from tasks.send import send_archive, send_backfill
from worker.polling import poll as poll_source


@app.task(name=POLL, throws=EXPECTED)
def poll(source: str) -> None:
    """Poll the source of that name; dropped when none is configured."""
    if found := configured(source):
        perform(partial(poll_source, source=found, send=send_archive, backfill=send_backfill))
