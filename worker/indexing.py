"""The index of a day in the bucket: read where it can be used, written by audits. What it says is `storage.day_index`.

Written again it replaces what was there: in a bucket with versions the older ones are removed where callvault may do
that, for they are of no use to anybody.
"""

import hashlib
from collections.abc import Collection, Iterable
from datetime import date

from storage.day_index import MAX_INDEX, Row, decode, encode
from storage.errors import IntegrityError, ObjectMissing, StoreRefused, VersionLocked
from worker.runtime import Services

_SUFFIX = ".json.gz"


async def known_rows(services: Services, source: str, day: date) -> dict[str, Row]:
    """Return what the index of a day says, by `rid`; nothing where there is none, or none that can be used."""
    try:
        return decode(await services.store.get(services.keys.index(source, day), max_bytes=MAX_INDEX), source, day)
    except (ObjectMissing, IntegrityError, ValueError):
        return {}


async def write_rows(services: Services, source: str, day: date, rows: Iterable[Row]) -> None:
    """Write the index of a day anew."""
    key, body = services.keys.index(source, day), encode(source, day, rows)
    written = await services.store.put(
        key, body, sha256=hashlib.sha256(body).hexdigest(), content_type="application/gzip", create_only=False
    )
    if written.version_id is None:
        return
    older = [found async for found in services.store.versions(key) if found.key == key and not found.latest]
    try:
        for version in older:
            await services.store.delete_version(key, version.version_id)
    except (StoreRefused, VersionLocked):  # no right to, or a bucket that locks everything: they cost room, no more
        return


async def drop_rows(services: Services, source: str, day: date, rids: Collection[str]) -> None:
    """Write the index of a day without recordings that were destroyed: it says who spoke to whom."""
    known = await known_rows(services, source, day)
    left = [row for rid, row in known.items() if rid not in rids]
    if len(left) < len(known):
        await write_rows(services, source, day, left)


async def indexed_days(services: Services, source: str) -> list[date]:
    """Return the days of a source that have an index, oldest first."""
    prefix = services.keys.days("index", source)
    found = []
    async for listed in services.store.objects(prefix):
        label, _, value = listed.key[len(prefix) :].removesuffix(_SUFFIX).partition("=")
        try:
            day = date.fromisoformat(value)
        except ValueError:  # somebody else's object
            continue
        if label == "date" and listed.key == services.keys.index(source, day):
            found.append(day)
    return found
