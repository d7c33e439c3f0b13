"""The tasks `hold` and `holds`: a turn of carrying one matter through the archive, and whatever was left undone.

The work is `worker.carrying`.
"""

from functools import partial

from tasks.app import app
from tasks.names import HOLD, HOLDS
from tasks.process import EXPECTED, perform
from tasks.send import send_hold
from worker.carrying import due, turn


@app.task(name=HOLD, throws=EXPECTED)
def hold(name: str) -> None:
    """Take a turn of the matter of that name."""
    perform(partial(turn, name=str(name), send=send_hold))


@app.task(name=HOLDS, throws=EXPECTED)
def holds() -> None:
    """Ask for turns of what is not carried through."""
    perform(partial(due, send=send_hold))
