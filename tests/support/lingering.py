"""A worker of the real application with two tasks more: one lingers, and writes down what becomes of it; one blocks.

`python -P -m tests.support.lingering FOLDER CELERY-OPTION…`. Each run of the task appends lines to FOLDER/diary:
`began PID`, then `cleaned PID` when it was cancelled and could clean up, as a transfer aborts its upload. Long tasks
sing five times a second here, not once a minute.
"""

import asyncio
import os
import sys
import time
from pathlib import Path

from tasks import liveness, process
from tasks.app import app
from tasks.loop import Loop
from tasks.process import EXPECTED, perform
from tasks.stopping import FLAG
from worker.runtime import Services

LINGER = "tests.linger"
BLOCK = "tests.block"


def write(folder: str, line: str) -> None:
    """Add a line to the diary."""
    with (Path(folder) / "diary").open("a") as diary:
        diary.write(f"{line} {os.getpid()}\n")


@app.task(name=LINGER, throws=EXPECTED)
def linger(folder: str) -> None:
    """Stay until cancelled, unless FOLDER/enough exists."""

    async def work(services: Services) -> None:
        write(folder, "began")
        if (Path(folder) / "enough").exists():
            return
        try:
            await asyncio.Event().wait()
        finally:
            await services.state.ping()  # cleaning up still has its connections
            write(folder, "cleaned")

    perform(work)


@app.task(name=BLOCK)
def block(folder: str) -> None:
    """Keep the event loop from running until FOLDER/enough exists, as a mistake in a library would."""

    async def work(_: Services) -> None:
        write(folder, "began")
        while not (Path(folder) / "enough").exists():
            time.sleep(0.05)  # noqa: ASYNC251 - that is the mistake

    perform(work)


if __name__ == "__main__":
    liveness._EVERY = 0.2
    process._loop = Loop(FLAG, grace=0.2)
    app.conf.worker_lost_wait = 0.5  # seconds until the death of a pool process is believed
    sys.exit(app.start(["--quiet", "worker", *sys.argv[1:]]))
