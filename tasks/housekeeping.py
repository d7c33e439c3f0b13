"""The task `housekeeping`: tidy up what deaths left behind. The work is `worker.housekeeping`."""

from tasks.app import app
from tasks.names import HOUSEKEEPING
from tasks.process import EXPECTED, perform
from worker.housekeeping import clean_up


@app.task(name=HOUSEKEEPING, throws=EXPECTED)
def housekeeping() -> None:
    """Clean up."""
    perform(clean_up)
