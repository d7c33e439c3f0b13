"""The task `audit`: one turn of the week's audit of locks and holds. The work is `worker.audit_turns`."""

from functools import partial

from tasks.app import app
from tasks.names import AUDIT
from tasks.process import EXPECTED, perform
from tasks.send import send_audit
from worker.audit_turns import scheduled


@app.task(name=AUDIT, throws=EXPECTED)
def audit() -> None:
    """Take a turn."""
    perform(partial(scheduled, send=send_audit))
