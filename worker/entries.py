"""What is in the archive, day by day, for retention: which sources and days there are, and the entries of one.

Read from the bucket and not from the configuration: a source that was taken out of it is kept, held and destroyed all
the same. An entry costs a request; a sidecar that cannot be read is told, never passed over.
"""

from dataclasses import dataclass, field
from datetime import date

from storage.entry import Entry
from storage.errors import IntegrityError, ObjectMissing
from storage.sidecar import Sidecar
from worker.runtime import Services

MAX_SIDECAR = 32 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Day:
    """What lies under one day of a source."""

    source: str
    day: date
    entries: list[Entry]
    unreadable: list[str] = field(default_factory=list)
    """Keys of sidecars that are none: somebody has to look at them."""


async def sources(services: Services, kind: str = "recordings") -> list[str]:
    """Return the names of all sources that the bucket has recordings of, or something of another kind."""
    prefix = services.keys.sources(kind)
    found = await services.store.folders(prefix)
    return [name for folder in found if (name := _value(folder, prefix, "source"))]


async def days(services: Services, source: str, kind: str = "recordings") -> list[date]:
    """Return the days of a source that have recordings, or something of another kind, oldest first."""
    prefix = services.keys.days(kind, source)
    found = []
    for folder in await services.store.folders(prefix):
        try:
            found.append(date.fromisoformat(_value(folder, prefix, "date")))
        except ValueError:  # somebody else's folder
            continue
    return sorted(found)


async def read_day(services: Services, source: str, day: date) -> Day:
    """Return the entries of one day, in the order of their keys."""
    found = Day(source, day, [])
    async for listed in services.store.objects(services.keys.partition("recordings", source, day)):
        parsed = services.keys.parse(listed.key)
        if parsed is None or parsed.ext != "json":
            continue
        try:
            entry = await read_entry(services, source, day, parsed.rid)
        except (ValueError, IntegrityError):
            found.unreadable.append(listed.key)
        except ObjectMissing:  # destroyed since it was listed
            continue
        else:
            found.entries.append(entry)
    return found


async def read_entry(services: Services, source: str, day: date, rid: str) -> Entry:
    """Return one entry, read from its sidecar. ObjectMissing, IntegrityError, ValueError for what is no sidecar."""
    key = services.keys.sidecar(source, day, rid)
    return Entry.of(Sidecar.model_validate_json(await services.store.get(key, max_bytes=MAX_SIDECAR)), day, rid)


def _value(folder: str, prefix: str, name: str) -> str:
    label, _, value = folder[len(prefix) :].rstrip("/").partition("=")
    return value if label == name else ""
