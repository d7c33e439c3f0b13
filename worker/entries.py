"""What is in the archive, day by day, for retention: which sources and days there are, and the entries of one.

Read from the bucket and not from the configuration: a source that was taken out of it is kept, held and destroyed all
the same. An entry costs a request, unless the day's index has it; a sidecar that cannot be read is told, never passed
over.
"""

from dataclasses import dataclass, field
from datetime import date
from functools import partial

from storage.day_index import Mark, Row
from storage.entry import Entry
from storage.errors import IntegrityError, ObjectMissing
from storage.keys import rid as rid_of
from storage.sidecar import Sidecar
from worker.abreast import abreast
from worker.indexing import known_rows
from worker.runtime import Services

MAX_SIDECAR = 32 * 1024 * 1024


@dataclass(slots=True)
class Day:
    """What lies under one day of a source."""

    source: str
    day: date
    rows: list[Row] = field(default_factory=list)
    """The recordings in the order of their keys, each with what its sidecar was listed as."""
    unreadable: list[str] = field(default_factory=list)
    """Keys of sidecars that are none: somebody has to look at them."""
    read: int = 0
    """How many of the rows were read from their sidecars, and not from the index."""
    gone: list[Row] = field(default_factory=list)
    """What the index knows, and the listing has no more."""

    @property
    def entries(self) -> list[Entry]:
        """Return the recordings."""
        return [row.entry for row in self.rows]


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


async def read_day(services: Services, source: str, day: date, *, indexed: bool = False) -> Day:
    """Return the entries of one day, in the order of their keys: each read from its sidecar.

    `indexed`, from the day's index as far as that has the sidecars that are listed: for planning, never for deleting.
    """
    listed: dict[str, Mark] = {}
    async for found in services.store.objects(services.keys.partition("recordings", source, day)):
        if found.key.endswith(".json") and (parsed := services.keys.parse(found.key)):
            listed[parsed.rid] = Mark.of(found)
    known = await known_rows(services, source, day) if indexed and listed else {}
    fresh = [rid for rid, mark in listed.items() if rid not in known or known[rid].mark != mark]
    read = dict(zip(fresh, await abreast(partial(tried, services, source, day), fresh), strict=True))
    result = Day(source, day, gone=[row for rid, row in known.items() if rid not in listed])
    for rid, mark in listed.items():
        if rid not in read:
            result.rows.append(known[rid])
        elif isinstance(entry := read[rid], Entry):
            result.rows.append(Row(mark, entry))
            result.read += 1
        elif not isinstance(entry, ObjectMissing):  # destroyed since it was listed
            result.unreadable.append(services.keys.sidecar(source, day, rid))
    return result


async def tried(services: Services, source: str, day: date, rid: str) -> Entry | Exception:
    """Return one entry, or why there is none: ObjectMissing, IntegrityError or ValueError."""
    try:
        return await read_entry(services, source, day, rid)
    except (ObjectMissing, IntegrityError, ValueError) as error:
        return error


async def read_entry(services: Services, source: str, day: date, rid: str) -> Entry:
    """Return one entry, read from its sidecar. ObjectMissing, IntegrityError, ValueError for what is no sidecar.

    One that speaks of another source or recording than its key is none.
    """
    key = services.keys.sidecar(source, day, rid)
    entry = Entry.of(Sidecar.model_validate_json(await services.store.get(key, max_bytes=MAX_SIDECAR)), day, rid)
    if (entry.source, rid_of(entry.recording_id)) != (source, rid):
        raise ValueError(f"{key} speaks of {entry.source}/{entry.recording_id}")
    return entry


def _value(folder: str, prefix: str, name: str) -> str:
    label, _, value = folder[len(prefix) :].rstrip("/").partition("=")
    return value if label == name else ""
