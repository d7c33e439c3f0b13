"""Runs a program that ends when the process that started it does.

`python leash.py PARENT-PID PROGRAM ARGUMENT…`: `callvault up` starts everything through this, so that nothing is
left behind when it is itself killed with SIGKILL and cannot tidy up. The kernel's promise (PR_SET_PDEATHSIG)
outlives the exec; it is Linux's own, and elsewhere the program simply runs. It is called by file name, not as a
module, and imports nothing of callvault.
"""

import ctypes
import os
import signal
import sys
from pathlib import Path

_PR_SET_PDEATHSIG = 1  # from <linux/prctl.h>


def leashed(*command: str) -> list[str]:
    """Return the command line that runs `command` as a child which ends, by SIGTERM, with the calling process."""
    return [sys.executable, "-I", str(Path(__file__).resolve()), str(os.getpid()), *command]


def main(arguments: list[str]) -> None:
    """Tie this process to its parent and become the program."""
    parent, program = int(arguments[0]), arguments[1:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() == parent:  # else the parent died before the leash was on
        os.execv(program[0], program)  # noqa: S606 - what to run is decided by our own code


if __name__ == "__main__":  # pragma: no cover - runs in a child process, which tests start
    main(sys.argv[1:])
