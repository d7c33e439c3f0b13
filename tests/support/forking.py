"""The command line, again and again, each time in a process of its own that begins in milliseconds.

`python -P -m tests.support.forking` imports everything once. For each line on its standard input, a JSON list of
arguments, it forks a process that runs the command, prints that process's id, and when it has ended its status.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self


class Forking:
    """Starts commands. A context manager; leaving it ends what forks them."""

    def __init__(self, environ: Mapping[str, str], log: Path) -> None:
        self._log = log.open("ab")
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "tests.support.forking"],
            cwd=Path(__file__).parents[2],
            env={**environ, "PYTHONPATH": str(Path(__file__).parents[2]), "PYTHONWARNINGS": "ignore"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )

    def start(self, *arguments: str) -> int:
        """Start a command and return the id of its process."""
        assert self._process.stdin
        self._process.stdin.write(json.dumps(arguments) + "\n")
        self._process.stdin.flush()
        return self._number()

    def ended(self) -> int:
        """Wait for the end of the command, and return its exit code, or the negative number of its signal."""
        return os.waitstatus_to_exitcode(self._number())

    def _number(self) -> int:
        assert self._process.stdout
        line = self._process.stdout.readline()
        assert line, "the process that forks is gone: see its log"
        return int(line)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()
        self._log.close()


def main() -> None:
    """Fork as asked until the input ends."""
    from tasks.cli.command import app

    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.dup2(2, 1)
            try:
                app(json.loads(line))
            except SystemExit as end:
                os._exit(end.code if isinstance(end.code, int) else 1)
            finally:
                os._exit(70)
        print(pid, flush=True)  # noqa: T201 - it is what is read at the other end
        print(os.waitpid(pid, 0)[1], flush=True)  # noqa: T201 - as above


if __name__ == "__main__":
    main()
