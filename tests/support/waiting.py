"""Waiting for another process to get somewhere: asked often, given up late, so that no test depends on speed."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

PATIENCE = 40.0
"""Seconds after which something that has not happened never will."""


def wait_for(condition: Callable[[], T], what: str, patience: float = PATIENCE) -> T:
    """Return the first true value of `condition`; AssertionError naming `what` when none comes."""
    ends = time.monotonic() + patience
    while time.monotonic() < ends:
        if value := condition():
            return value
        time.sleep(0.02)  # another process is at work: there is nothing to wait on
    raise AssertionError(f"this did not happen within {patience:.0f} s: {what}")
