"""The task `canary`: by running it, a worker proves that it takes messages. What it leaves is `tasks.liveness`."""

from tasks.app import app
from tasks.liveness import sing
from tasks.names import CANARY
from tasks.process import EXPECTED, perform


@app.task(name=CANARY, throws=EXPECTED)
def canary() -> None:
    """Note the time."""
    perform(lambda services: sing(services.state, services.clock))
