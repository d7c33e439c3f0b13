"""Runs Celery's worker or its scheduler in this process: `python -P -m tasks.launch worker`, or from a verb.

The same as `celery -A tasks.app worker`, except that it takes nothing from the working directory: celery's own
command looks there first, and a folder called `config` or `tasks` is nothing unusual. Keeping both running is
`tasks.up`.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from config.load import VARIABLE

_ROOT = Path(__file__).resolve().parent.parent

_OPTIONS = {
    # gossip and mingle are talk among workers about what none of ours needs
    "worker": ("--without-gossip", "--without-mingle", "--hostname", f"callvault-{os.getpid()}@%h"),
    "beat": (),
}


def run(role: str, options: Sequence[str] = ()) -> int:
    """Be a `worker` or a `beat` until told to stop, with further options of Celery's; return the exit code."""
    from celery import signals  # noqa: PLC0415 - `command` and `environment` are wanted without Celery

    from tasks.app import app  # noqa: PLC0415 - as above

    workers: list[Any] = []

    def note(instance: Any, **_: object) -> None:
        workers.append(instance)

    # `start` keeps a worker's exit code to itself
    signals.celeryd_after_setup.connect(note)
    try:
        app.start(["--quiet", role, *_OPTIONS[role], *options])
    finally:
        signals.celeryd_after_setup.disconnect(note)
    return next((worker.exitcode or 0 for worker in workers), 0)


def command(role: str) -> list[str]:
    """Return the command line for a child process that is a `worker` or a `beat`."""
    return [sys.executable, "-P", "-m", "tasks.launch", role]


def environment(config: Path, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment for such a child: it finds this very code and this configuration."""
    path = os.pathsep.join(filter(None, (str(_ROOT), environ.get("PYTHONPATH"))))
    return {**environ, "PYTHONPATH": path, VARIABLE: str(config.absolute())}


if __name__ == "__main__":  # pragma: no cover - runs in a child process, which tests start
    sys.exit(run(sys.argv[1], sys.argv[2:]))
