"""A worker of the real application in which one recording of hq kills whoever downloads it, as the kernel would.

`python -P -m tests.support.deadly RECORDING DIARY CELERY-OPTION…`. Each death appends a line to DIARY: the process's
id, and those of all that were killed with it. With the word `parent` before RECORDING the whole worker dies, once.
"""

import os
import signal
import sys
from pathlib import Path
from typing import Any

import worker.batch
import worker.handover
from tasks.app import app
from worker.transfer import Transfer


def deadly(recording: str, diary: Path, *, parent: bool) -> None:
    """Have the recording's download kill its process, or the worker with all its processes."""
    real = Transfer.attempt

    async def attempt(self: Transfer) -> Any:
        if (self._desk.source.name, self._recording.id) == ("hq", recording):
            with diary.open("a") as book:
                book.write(f"{os.getpid()}\n")
            if parent:
                os.killpg(os.getpgrp(), signal.SIGKILL)
            os.kill(os.getpid(), signal.SIGKILL)
        return await real(self)

    Transfer.attempt = attempt  # type: ignore[method-assign]


if __name__ == "__main__":
    whole = sys.argv[1] == "parent"
    name, book, *options = sys.argv[2:] if whole else sys.argv[1:]
    deadly(name, Path(book), parent=whole)
    worker.handover.BATCH_LEASE = 5.0  # seconds until the dead one's batch is taken over, and signs to match
    worker.batch._LOOK_EVERY = 0.1
    app.conf.worker_lost_wait = 0.5
    sys.exit(app.start(["--quiet", "worker", "--without-mingle", "--without-gossip", *options]))
