"""Imagicle Call Recording: JSON over Basic credentials, a list newest first, a detail with size and SHA-256, MP3.

The list comes newest first and in numbered pages, so a recording that arrives or is purged while it is walked
shifts the rest: a list whose `totalCount` changed on the way is walked once more. Every download is written to
the customer's audit log, so one is made per recording. Which bytes `size` and the hash cover is documented
nowhere: they are handed on as they are and judged by `worker.verify`. Facts: the vendor's pages "List
recordings", "Get Recording" and "Download Recording"; nothing was recorded from a live system.
"""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, ClassVar, Literal

from pydantic import SecretStr

from config.settings import Source, VendorOptions
from storage.sidecar import CallFacts, Direction, utc_text
from worker.errors import BadAnswer, SourceError
from worker.model import ClaimedHash, Page, Recording, Unreadable, Window
from worker.rest.client import Purpose, Reply, RestClient, segment, twice
from worker.rest.decode import json_object, text_of
from worker.times import end_of, iso_duration, parse_iso
from worker.vendor import MediaStream, Vendor, VendorInfo

_RECORDINGS = "/fw/Apps/Recorder/WebAPI/Recordings"
_LONGEST_CALL = timedelta(hours=24)
"""The only upper bound that can be asked for is on the end of a call. 256 MB, the most the API takes, is 14 h."""


class ImagicleOptions(VendorOptions):
    """Keys of an Imagicle source. The user needs an admin profile: others see a part of the recordings only."""

    username: str
    password: SecretStr
    on_hash_mismatch: Literal["quarantine", "warn"] = "quarantine"


@dataclass(frozen=True, slots=True)
class _Cursor:
    """Where a walk through the list stands; written as text between two pages."""

    walk: int = 1
    page: int = 0
    rows: int = 0
    """Rows seen so far in this walk."""
    total: int = -1
    """`totalCount` of this walk's first page; -1 where there was none."""

    @classmethod
    def read(cls, text: str | None) -> "_Cursor":
        return cls(*map(int, text.split(":"))) if text else cls()

    def write(self) -> str:
        return f"{self.walk}:{self.page}:{self.rows}:{self.total}"


class Imagicle:
    """One Imagicle server (or cloud tenant) as one user sees it."""

    info: ClassVar[VendorInfo] = VendorInfo(
        name="imagicle",
        title="Imagicle Call Recording",
        options=ImagicleOptions,
        needs_timezone=False,
        max_window=timedelta(days=7),
    )
    page_size: ClassVar[int] = 100
    """Rows asked for at a time. Without any, the server would send all of them at once."""

    def __init__(self, rest: RestClient, source: Source) -> None:
        options = ImagicleOptions.model_validate(source.options)
        pair = f"{options.username}:{options.password.get_secret_value()}"
        credentials = base64.b64encode(pair.encode()).decode()
        rest.hide(credentials)
        self._rest = rest
        self._name = source.name
        self._zone = source.timezone
        self._headers = {"Authorization": f"Basic {credentials}"}

    async def list_page(self, window: Window, cursor: str | None) -> Page:
        """Return one page of the recordings of calls that started in the window, newest first.

        Shorter pages than asked for are taken as they are: the list ends where `totalCount` rows were seen, or
        with an empty page.
        """
        at = _Cursor.read(cursor)
        params: dict[str, str | int] = {
            "page": at.page,
            "pageSize": self.page_size,
            "startTime": f"after:{_second(window.start - timedelta(seconds=1))}",
            "endTime": f"before:{_second(window.end + _LONGEST_CALL)}",
        }
        reply = await self._get(_RECORDINGS, Purpose.LIST, params)
        told = json_object(reply.body, f"{self._name}: recordings", self._rest.clean)
        rows = _field(told, "recordings")
        if not isinstance(rows, list):
            raise BadAnswer(f"{self._name}: recordings: expected an array, got {type(rows).__name__}")
        total = _whole(_field(told, "totalCount"))
        total = -1 if total is None else total
        here = replace(at, page=at.page + 1, rows=at.rows + len(rows), total=total if at.page == 0 else at.total)
        following, missing = self._following(here, total, empty=not rows)
        read = [self._row(row) for row in rows]
        return Page(
            recordings=tuple(r for r in read if isinstance(r, Recording)),
            next=following.write() if following else None,
            unreadable=tuple(r for r in read if isinstance(r, Unreadable)) + missing,
            again=at.walk > 1,
            total=total if total >= 0 and not missing else None,
        )

    def _following(self, here: _Cursor, total: int, *, empty: bool) -> tuple[_Cursor | None, tuple[Unreadable, ...]]:
        """Return where to go on, and what is to be said of a list that stayed shorter than announced."""
        if not empty and (total < 0 or here.rows < total):
            return here, ()
        short = here.rows < total
        if here.walk == 1 and (short or total != here.total):
            return _Cursor(walk=2), ()
        if short:
            detail = f"the list announces {total} recordings and gave {here.rows}, twice; has the user all rights?"
            return None, (Unreadable(None, detail, {"totalCount": total, "rows": here.rows}),)
        return None, ()

    async def describe(self, recording: Recording) -> Recording:
        """Add owner, call id, size and hash from the recording's detail, which replaces the listed row as `record`.

        MediaNotFound where there is none: the list may come from a node that is ahead of the one that answers.
        No trouble here is passed over, because a recording without its detail is one without its hash.
        """
        reply = await self._get(f"{_RECORDINGS}/{segment(recording.id)}", Purpose.DETAIL)
        detail = json_object(reply.body, f"{self._name}: recording", self._rest.clean)
        if (_text(detail, "id") or "").lower() != recording.id.lower():
            raise BadAnswer(f"{self._name}: the detail of {self._rest.clean(recording.id)} is of another recording")
        known = {**recording.record, **{name: value for name, value in detail.items() if value is not None}}
        call, notes = self._facts(recording.started_at, known)  # the start as listed: it decides where it is kept
        size, claimed = _field(detail, "size"), _claimed(_field(detail, "hash"))
        if size is not None and _whole(size) is None:
            notes += (f"size: {self._rest.clean(str(size))!r} is no number of bytes",)
        return replace(
            recording,
            call=call,
            record=detail,
            expected_bytes=_whole(size),
            claimed_hash=claimed,
            notes=notes,
        )

    async def open_media(self, recording: Recording) -> MediaStream:
        """Open the decrypted MP3. Each call is an entry in the customer's audit log."""
        path = f"{_RECORDINGS}/{segment(recording.id)}/Media"
        return await twice(
            lambda: self._rest.open_audio("GET", path, document=self._refused, headers=self._headers), fatal=False
        )

    async def _get(self, path: str, purpose: Purpose, params: Mapping[str, str | int] | None = None) -> Reply:
        return await twice(
            lambda: self._rest.call("GET", path, purpose=purpose, params=params, headers=self._headers),
            fatal=purpose is Purpose.LIST,
        )

    def _row(self, row: Any) -> Recording | Unreadable:
        if not isinstance(row, dict):
            return Unreadable(None, "a listed recording is not a JSON object", {"value": row})
        name = _text(row, "id")
        if name is None:
            return Unreadable(None, "a listed recording has no id", row)
        try:
            started = parse_iso(_text(row, "startTime") or "", self._zone)
        except ValueError as error:
            return Unreadable(name, f"startTime: {error}", row)
        call, notes = self._facts(started, row)
        return Recording(id=name, call=call, record=row, notes=notes)

    def _facts(self, started: datetime, row: Mapping[str, Any]) -> tuple[CallFacts, tuple[str, ...]]:
        """Read what a row or a detail says of the call, and what is to be noted; any field may be missing."""
        notes: tuple[str, ...] = ()
        printed = _text(row, "duration")
        seconds = iso_duration(printed or "")
        if printed and seconds is None:
            notes += (f"duration: {self._rest.clean(printed)!r} cannot be read",)
        direction = _DIRECTIONS.get(_whole(_field(row, "direction")), Direction.UNKNOWN)
        local, remote = _text(row, "localPartyNumber"), _text(row, "remotePartyNumber")
        from_, to = (remote, local) if direction is Direction.INBOUND else (local, remote)
        if direction is Direction.UNKNOWN and (local or remote):
            notes += ("the phone system does not say who called; its own party stands as `from`",)
        facts = CallFacts(
            started_at=started,
            ended_at=end_of(started, seconds),
            duration_seconds=seconds,
            direction=direction,
            from_=from_,
            to=to,
            agent=_text(row, "ownerUsername") or _owner(_field(row, "owner")),
            call_id=_text(row, "pbxCallId") or _call_id(_field(row, "pbxInfo")),
        )
        return facts, notes

    def _refused(self, body: bytes) -> SourceError:
        """Return the error that a document in place of audio is; the API's own is `{"reason", "message"}`."""
        return BadAnswer(f"{self._name}: media: a document came in place of audio: {self._rest.clean(text_of(body))}")


def _field(row: Mapping[str, Any], name: str) -> Any:
    """Return a field whose name matches in any case: the pages write `SHA256`, servers may not."""
    return next((value for key, value in row.items() if key.lower() == name.lower()), None)


def _text(row: Mapping[str, Any], name: str) -> str | None:
    """Return a field that is a text with something in it, or a number, as text; None for anything else."""
    value = _field(row, name)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value if isinstance(value, str) and value.strip() else None


def _whole(value: Any) -> int | None:
    """Return a number of something, given as a number or in digits; None for anything else."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20:
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _owner(owner: Any) -> str | None:
    """Return the recording user's name."""
    if not isinstance(owner, dict):
        return None
    full = " ".join(filter(None, (_text(owner, "firstName"), _text(owner, "lastName"))))
    return _text(owner, "username") or full or None


def _call_id(info: Any) -> str | None:
    """Return what `pbxInfo` says of the call. Its fields are not documented, so all of it where none is named so."""
    if isinstance(info, dict) and info:
        named = _text(info, "callId") or _text(info, "pbxCallId")
        return named or json.dumps(info, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return info if isinstance(info, str) and info.strip() else None


def _claimed(told: Any) -> ClaimedHash | None:
    """Return the hash, verbatim: SHA-256 where there is one, else the first of another kind, else none."""
    if isinstance(told, str):
        told = {"SHA256": told}
    if not isinstance(told, dict):
        return None
    claims = {key.upper().replace("-", ""): value for key, value in told.items() if value not in (None, "")}
    if "SHA256" in claims:
        return ClaimedHash("SHA-256", str(claims["SHA256"]))
    return next((ClaimedHash(name, str(value)) for name, value in claims.items()), None)


def _second(moment: datetime) -> str:
    """Write a time for a filter: UTC with `Z`, whole seconds."""
    return utc_text(moment.replace(microsecond=0))


_DIRECTIONS: Mapping[int | None, Direction] = {1: Direction.INBOUND, 2: Direction.OUTBOUND}  # 0 is unknown

VENDOR: type[Vendor] = Imagicle
