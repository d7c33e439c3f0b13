"""Whether archiving can work: each source is logged in to and asked for a page, the bucket is tried out."""

from dataclasses import dataclass
from datetime import timedelta

from config.events import Event
from config.logs import get_logger
from config.settings import Settings, Source
from storage.errors import NoObjectLock, StoreError
from storage.lock import no_object_lock
from storage.store import ArchiveStore, Capabilities
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
    if trouble := _unlockable(services.settings, found):
        return Finding(what, ok=False, detail=trouble.message)
    lock = {True: "object lock on", False: "object lock off", None: "object lock unknown"}[found.object_lock]
    detail = f"can be written; {'versioned' if found.versioned else 'no versions'}, {lock}"
    mode = services.settings.retention.mode
    warnings = found.shortcomings()
    if mode is not None:
        detail += f"; recordings are locked in {mode} mode, policy {services.settings.retention.version}"
        if found.object_lock is None:
            warnings.append("whether object lock is on could not be read: each lock is read back when it is written")
    return Finding(what, ok=True, detail=detail, warnings=tuple(warnings))


async def refuse_unlockable(settings: Settings, store: ArchiveStore) -> None:
    """Raise NoObjectLock where the configuration asks for locks and the bucket can hold none; or as a probe does.

    Without a mode nothing is asked. Where it cannot be read, each lock that is written is read back anyway.
    """
    if settings.retention.mode is not None:
        trouble = _unlockable(settings, await store.ensure_probed())
        if trouble is not None:
            raise trouble


def _unlockable(settings: Settings, found: Capabilities) -> NoObjectLock | None:
    if settings.retention.mode is None or found.object_lock is not False:
        return None
    return no_object_lock(settings.archive.bucket)
