"""Whether archiving can work: each source is logged in to and asked for a page, the bucket is tried out."""

from dataclasses import dataclass
from datetime import timedelta

from config.events import Event
from config.logs import get_logger
from config.settings import Source
from storage.errors import StoreError
from worker.batch import patiently
from worker.errors import SourceError
from worker.model import Window
from worker.runtime import Services

log = get_logger()

_LOOK_BACK = timedelta(hours=24)


@dataclass(frozen=True, slots=True)
class Finding:
    """What came of checking one thing: a source, the bucket, the broker."""

    what: str
    ok: bool
    detail: str
    warnings: tuple[str, ...] = ()


async def check_source(services: Services, source: Source) -> Finding:
    """Log in and list one page of the last day. Never raises for trouble with the source."""
    what = f"source {source.name} ({source.vendor})"
    warnings = []
    if source.url.startswith("http://"):
        warnings.append("plain http: passwords and recordings cross the network unencrypted; use https if it has it")
    desk = services.desk(source)
    now = services.clock.now()
    rows: list[int] = []

    async def look() -> None:
        page = await desk.vendor.list_page(Window(now - _LOOK_BACK, now), None)
        rows.append(len(page.recordings))
        warnings.extend(f"a row cannot be read: {row.detail}" for row in page.unreadable[:3])

    try:
        await patiently(desk.gate, source.name, look())
    except SourceError as error:
        return Finding(what, ok=False, detail=error.message, warnings=tuple(warnings))
    except Exception as error:  # a bug met by one source must not hide what is known of the others
        log.error(Event.BUG, source=source.name, exc_info=error)
        return Finding(what, ok=False, detail=f"unexpected {type(error).__name__}; see the log")
    detail = f"logged in; the first page of the last 24 hours has {rows[0]} recording(s)"
    return Finding(what, ok=True, detail=detail, warnings=tuple(warnings))


async def check_bucket(services: Services) -> Finding:
    """Write, overwrite, damage and remove probe objects. Never raises for trouble with the bucket."""
    what = f"bucket {services.settings.archive.bucket}"
    try:
        found = await services.store.probe(services.keys.probe(""))
    except StoreError as error:
        return Finding(what, ok=False, detail=error.message)
    lock = {True: "object lock on", False: "object lock off", None: "object lock unknown"}[found.object_lock]
    detail = f"can be written; {'versioned' if found.versioned else 'no versions'}, {lock}"
    return Finding(what, ok=True, detail=detail, warnings=tuple(found.shortcomings()))
