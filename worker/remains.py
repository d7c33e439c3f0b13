"""What the bucket has of each recording: every version of all its objects, by listing. Nothing is read but keys.

Listings of versions also show what a delete marker hides, which a plain listing and a GET do not.
"""

from dataclasses import dataclass, field
from datetime import date

from storage.certificate import Part
from storage.keys import NO_DATE, ParsedKey
from storage.store import Version
from worker.runtime import Services

_ORDER = list(Part)  # in which they are deleted: without its sidecar a recording is not held


@dataclass(slots=True)
class Remains:
    """All there is of one recording under one day."""

    source: str
    day: date
    rid: str
    versions: list[tuple[Part, Version]] = field(default_factory=list)
    """The sidecar's first, then media, quarantine and gap records."""
    noted: bool = False
    """Whether there is a note that it was to be destroyed before."""

    def of(self, part: Part) -> list[Version]:
        """Return the versions of one part."""
        return [version for found, version in self.versions if found is part]

    @property
    def markers(self) -> list[str]:
        """Return the keys that have delete markers."""
        return sorted({version.key for _, version in self.versions if version.marker})


async def look(services: Services, source: str, day: date, rid: str = "") -> dict[str, Remains]:
    """Return what there is under one day by `rid`, or of one recording alone. Four listings, or a few more.

    Gap records of rows that had no readable start lie under another day: they are added to what is here.
    """
    found: dict[str, Remains] = {}
    for kind in ("recordings", "gaps", "quarantine", "destroyed"):
        await _list(services, found, kind, source, day, day, rid)
    if day != NO_DATE:
        undated: dict[str, Remains] = {}
        await _list(services, undated, "gaps", source, NO_DATE, day, rid)
        for name, there in undated.items():
            if name in found:
                found[name].versions += there.versions
    for remains in found.values():
        remains.versions.sort(key=lambda row: _ORDER.index(row[0]))
    return found


async def _list(
    services: Services, found: dict[str, Remains], kind: str, source: str, lies_under: date, day: date, rid: str
) -> None:
    async for version in services.store.versions(services.keys.partition(kind, source, lies_under) + rid):
        parsed = services.keys.parse(version.key)
        if parsed is None:
            continue  # somebody else's
        name = owner(parsed)
        if name is None or (rid and name != rid):
            continue
        remains = found.setdefault(name, Remains(source, day, name))
        if kind == "destroyed":
            remains.noted = remains.noted or not version.marker
        else:
            remains.versions.append((_part(parsed), version))


def owner(parsed: ParsedKey) -> str | None:
    """Return whose object it is; None where the key is of no form that is written here."""
    if parsed.kind != "quarantine":
        return parsed.rid
    name, _, number = parsed.rid.rpartition(".")
    return name if name and number.isascii() and number.isdigit() else None


def _part(parsed: ParsedKey) -> Part:
    if parsed.kind == "recordings":
        return Part.SIDECAR if parsed.ext == "json" else Part.MEDIA
    return Part.GAP if parsed.kind == "gaps" else Part.QUARANTINE
