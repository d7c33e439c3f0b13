"""A worker or scheduler of the real application that dies on order: `python -P -m tests.chaos.victim worker`.

ORDERS names a folder. A file there, called as a step of `worker.steps`, is an order to die at that step; whoever
reaches the step takes the file away and is gone. A file whose text is `worker` takes the whole worker along, not
only the process of its pool.
"""

import os
import signal
import sys
from pathlib import Path

from tasks import launch
from worker import chain, steps


def obey(orders: Path) -> None:
    """Look for an order at each step."""

    def listener(step: steps.Step) -> None:
        mine = orders / f"taken-{os.getpid()}"
        try:
            (orders / step.name).rename(mine)
        except FileNotFoundError:
            return
        everything = mine.read_text() == "worker"
        mine.rename(orders / f"done-{step.name}-{os.getpid()}")
        if everything:
            os.kill(os.getppid(), signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)

    steps.listen(listener)


if __name__ == "__main__":
    chain.BATCH = 20  # more batches, and so more of the steps between them
    obey(Path(os.environ["ORDERS"]))
    sys.exit(launch.run(sys.argv[1], sys.argv[2:]))
