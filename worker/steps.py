"""The named steps of a recording's way: the places where a process may die, and nothing may be lost or doubled.

Production has nobody listening. The fault campaign (`tests/chaos`) does, and kills its worker there; a step that
is not named here is one at which it never died on purpose.
"""

from collections.abc import Callable
from enum import StrEnum


class Step(StrEnum):
    """What has just happened. The order is that of a recording's way."""

    LISTED = "window listed"
    LAID_DOWN = "batches laid down"
    SENT = "first batches sent"
    TAKEN = "batch taken"
    BEGUN = "recording begun"
    OPENED = "media opened"
    PART_SENT = "part sent"
    RECEIVED = "media received"
    VERIFIED = "media verified"
    MEDIA_WRITTEN = "media written"
    SIDECAR_WRITTEN = "sidecar written"
    SETTLED = "recording settled"
    QUARANTINED = "evidence written"
    GAP_WRITTEN = "gap written"
    BATCH_DONE = "batch done"
    FOLLOWED = "next batch sent"


_listener: Callable[[Step], None] | None = None


def listen(listener: Callable[[Step], None] | None) -> None:
    """Have `listener` called at each step of this process; None ends that."""
    global _listener  # noqa: PLW0603 - one per process, as the process is what dies
    _listener = listener


def reached(step: Step) -> None:
    """Say that a step is done and the next has not begun."""
    if _listener is not None:
        _listener(step)
