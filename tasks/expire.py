"""The task `expire`: one turn of the day's expiry run. The work is `worker.turns`."""

import socket
from functools import partial

from tasks.app import app
from tasks.names import EXPIRE
from tasks.process import EXPECTED, dropped, perform, settings
from tasks.send import send_expire
from worker.turns import scheduled


@app.task(name=EXPIRE, throws=EXPECTED)
def expire() -> None:
    """Take a turn; dropped where the configuration of this worker deletes nothing."""
    if not settings().retention.expire:
        dropped("", "[retention] has expire = false here")
        return
    perform(partial(scheduled, by=f"schedule, worker on {socket.gethostname()}", send=send_expire))
