"""The task `rollcall`: by running it from its own queue, this very worker proves that it takes messages.

Who calls is `tasks.calling`; what the answer looks like says `tasks.liveness`.
"""

from typing import Any

from tasks.app import app
from tasks.hearing import DEAF
from tasks.liveness import answer
from tasks.names import ROLLCALL
from tasks.process import EXPECTED, perform, worker_id


@app.task(name=ROLLCALL, bind=True, throws=EXPECTED)
def rollcall(self: Any, call: str) -> None:
    """Note the time, and the queues this worker does not hear."""
    if worker := worker_id():
        deaf = self.request.get(DEAF) or ()
        perform(lambda services: answer(services.state, services.clock, worker, str(call)[:40], deaf))
