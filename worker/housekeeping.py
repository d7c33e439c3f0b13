"""What must be tidied up now and then: unfinished uploads that a death left behind."""

from datetime import timedelta

from config.events import Event
from config.logs import get_logger
from worker.runtime import Services

STALE = timedelta(days=1)
"""An unfinished upload of ours that is older than this belongs to nobody."""

log = get_logger()


async def clean_up(services: Services) -> int:
    """Abort our stale multipart uploads; return how many there were. StoreError when the bucket cannot be used."""
    prefix = f"{services.keys.prefix}v1/"
    aborted = await services.store.abort_stale_uploads(prefix, STALE, services.clock.now())
    log.info(Event.CLEANED_UP, aborted_uploads=aborted)
    return aborted
