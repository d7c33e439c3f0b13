"""The index of one day: what the sidecars of a source's day say, in one object, so that planning need not read each.

Derived and disposable. A row says from which sidecar it was made, by size and time as listed; it counts only while the
listing says the same, and nothing is ever deleted on its word. Columns, not records: a million rows are decoded in
seconds, and a column's types are checked at once. Damaged, foreign or of another version: ValueError, and that is all
the same to the caller, who reads the sidecars instead.
"""

import json
import zlib
from collections.abc import Iterable, Sequence
from datetime import date, datetime
from typing import Any, NamedTuple

from config.retention import LockMode
from storage.entry import Entry
from storage.sidecar import CallFacts, Direction, utc_text
from storage.store import ObjectInfo, Version

SCHEMA = "callvault/index/v1"
MAX_INDEX = 64 * 1024 * 1024
_MAX_TEXT = 1024 * 1024 * 1024
_GZIP = 16 + zlib.MAX_WBITS

_TEXTS = ("rid", "recording_id", "direction", "media_key", "sha256")
_OPTIONAL_TEXTS = ("from", "to", "agent", "queue", "call_id", "rule", "lock_mode")
_NUMBERS = ("sidecar_bytes", "sidecar_modified", "media_bytes")
_TIMES = ("archived_at",)
_OPTIONAL_TIMES = ("started_at", "ended_at", "promised", "locked")
_COLUMNS = (*_TEXTS, *_OPTIONAL_TEXTS, *_NUMBERS, *_TIMES, *_OPTIONAL_TIMES, "duration")

_NONE = type(None)
_TYPES: dict[str, frozenset[Any]] = {
    **dict.fromkeys(_TEXTS, frozenset({str})),
    **dict.fromkeys(_OPTIONAL_TEXTS, frozenset({str, _NONE})),
    **dict.fromkeys(_NUMBERS, frozenset({int})),
    **dict.fromkeys(_TIMES, frozenset({str})),
    **dict.fromkeys(_OPTIONAL_TIMES, frozenset({str, _NONE})),
    "duration": frozenset({int, float, _NONE}),
}
_MODES: dict[Any, LockMode | None] = {None: None, **{mode.value: mode for mode in LockMode}}
_DIRECTIONS: dict[Any, Direction] = {direction.value: direction for direction in Direction}
_CALL = set(CallFacts.model_fields)


class Mark(NamedTuple):
    """By what a listed sidecar is known again: its size, and its time in whole seconds: some stores have no more."""

    bytes: int
    modified: int

    @classmethod
    def of(cls, listed: ObjectInfo | Version) -> "Mark":
        """Return the mark of a sidecar as it is listed."""
        return cls(listed.bytes, int(listed.modified.timestamp()))


class Row(NamedTuple):
    """One recording of the day, and which sidecar said so."""

    mark: Mark
    entry: Entry


def encode(source: str, day: date, rows: Iterable[Row]) -> bytes:
    """Return the index of a day, compressed; the same rows make the same bytes."""
    records = [_record(row) for row in rows]
    columns = {name: [record[place] for record in records] for place, name in enumerate(_COLUMNS)}
    told = {"schema": SCHEMA, "source": source, "date": day.isoformat(), "columns": columns}
    packer = zlib.compressobj(level=6, wbits=_GZIP)
    return packer.compress(json.dumps(told, ensure_ascii=False, separators=(",", ":")).encode()) + packer.flush()


def decode(body: bytes, source: str, day: date) -> dict[str, Row]:
    """Return the rows of a day by `rid`. ValueError for anything that `encode` did not make for that source and day."""
    told = _read(body)
    if not isinstance(told, dict) or (told.get("schema"), told.get("source"), told.get("date")) != (
        SCHEMA,
        source,
        day.isoformat(),
    ):
        raise ValueError("no index of this day")
    columns = told.get("columns")
    found = [_column(columns if isinstance(columns, dict) else {}, name) for name in _COLUMNS]
    return {record[0]: _row(source, day, record) for record in zip(*found, strict=True)}


def _read(body: bytes) -> Any:
    unpacker = zlib.decompressobj(wbits=_GZIP)
    try:
        text = unpacker.decompress(body, _MAX_TEXT)
        if not unpacker.eof:
            raise ValueError("cut short, or far too long")
        return json.loads(text)
    except (zlib.error, RecursionError) as error:
        raise ValueError("damaged") from error


def _column(columns: dict[str, Any], name: str) -> Sequence[Any]:
    values = columns.get(name)
    if not isinstance(values, list) or not set(map(type, values)) <= _TYPES[name]:
        raise ValueError(f"the column {name} is missing, or has values of another kind")
    if name in _TIMES or name in _OPTIONAL_TIMES:
        times = [value and datetime.fromisoformat(value) for value in values]
        if any(moment is not None and moment.tzinfo is None for moment in times):
            raise ValueError("a time without offset")
        return times
    if name == "lock_mode":
        return [_known(_MODES, value) for value in values]
    if name == "direction":
        return [_known(_DIRECTIONS, value) for value in values]
    return values


def _known(table: dict[Any, Any], value: object) -> Any:
    try:
        return table[value]
    except KeyError:
        raise ValueError("a word that is not known") from None


def _record(row: Row) -> tuple[object, ...]:
    entry, call = row.entry, row.entry.call
    return (
        entry.rid, entry.recording_id, call.direction.value, entry.media_key, entry.sha256,
        call.from_, call.to, call.agent, call.queue, call.call_id, entry.rule,
        entry.lock_mode.value if entry.lock_mode else None,
        row.mark.bytes, row.mark.modified, entry.media_bytes,
        utc_text(entry.archived_at),
        _text(call.started_at), _text(call.ended_at), _text(entry.promised), _text(entry.locked),
        call.duration_seconds,
    )  # fmt: skip


def _row(source: str, day: date, record: tuple[Any, ...]) -> Row:
    (
        rid, recording_id, direction, media_key, sha256,
        from_, to, agent, queue, call_id, rule, lock_mode,
        sidecar_bytes, sidecar_modified, media_bytes,
        archived_at, started_at, ended_at, promised, locked, duration,
    ) = record  # fmt: skip
    call = CallFacts.model_construct(
        _CALL,
        started_at=started_at, ended_at=ended_at, duration_seconds=duration, direction=direction,
        from_=from_, to=to, agent=agent, queue=queue, call_id=call_id,
    )  # fmt: skip
    entry = Entry(
        source, day, rid, recording_id, call, media_key, media_bytes, sha256, archived_at, promised, rule, lock_mode,
        locked,
    )  # fmt: skip
    return Row(Mark(sidecar_bytes, sidecar_modified), entry)


def _text(moment: datetime | None) -> str | None:
    return None if moment is None else utc_text(moment)
