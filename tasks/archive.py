"""The task `archive`: archive one batch that a poll or a backfill laid down. The work is `worker.handover`."""

import re
from functools import partial

from tasks.app import app
from tasks.names import ARCHIVE
from tasks.process import EXPECTED, configured, dropped, perform
from tasks.send import send_again, send_archive
from worker.handover import archive_batch

_BATCH = re.compile(r"(poll|backfill)-[0-9a-f]{1,40}\.[0-9]{1,9}")


@app.task(name=ARCHIVE, throws=EXPECTED)
def archive(source: str, batch: object) -> None:
    """Archive the batch of that name; dropped when it is no name of a batch or the source is not configured."""
    if not (isinstance(batch, str) and _BATCH.fullmatch(batch)):
        dropped(source, "the batch has no name that a poll would give")
    elif found := configured(source):
        perform(partial(archive_batch, source=found, batch=batch, send=send_archive, again=send_again))
