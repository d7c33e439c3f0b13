"""XiVO CC recording server, REST API of 2017.03 and later.

Authentication: header `X-Auth-Token` on every request; no login, no session. Paging: by number from 1, until
`hasNext` is false or a page is empty. Times: local, without offset; the epoch inside the id
(`<gateway>-<epoch>.<n>`) is preferred. The search lists finished calls only, so all that is listed is ready.
Traps: the vendor's page prints the audio path with `records` once and twice; 2020.18 and later want the prefix
`/recording`; `duration` may be empty; `start` finds calls that start or end after it, so rows repeat at the edges.
Sources: documentation.xivo.solutions, "Recording server REST Api" of 2017.03, 2020.18, 2021.15 and 2023.10.
"""

import re
from datetime import datetime, timedelta
from typing import Any, ClassVar
from zoneinfo import ZoneInfo

from pydantic import SecretStr

from config.settings import Source, VendorOptions
from storage.sidecar import CallFacts, Direction
from worker.errors import BadAnswer, MediaNotFound, SourceError
from worker.model import Page, Recording, Unreadable, Window
from worker.rest.client import Purpose, RestClient, segment, twice
from worker.rest.decode import json_object, text_of
from worker.times import end_of, hms, local_span, start_of
from worker.vendor import MediaStream, Vendor, VendorInfo

_UNIQUE_ID = re.compile(r"-(\d{9,10}\.\d+)$")
_DIRECTIONS = {"incoming": Direction.INBOUND, "outgoing": Direction.OUTBOUND}


class Options(VendorOptions):
    """XiVO's own keys: the server's `authentication.token` or `PLAY_AUTH_TOKEN`, and the prefix of its paths."""

    token: SecretStr
    path_prefix: str = ""


class Xivo:
    """One XiVO CC recording server."""

    info: ClassVar[VendorInfo] = VendorInfo(
        name="xivo",
        title="XiVO CC recording server",
        options=Options,
        needs_timezone=True,
        max_window=timedelta(days=1),  # a short closed listing has few pages that could shift
    )
    page_size: ClassVar[int] = 100
    """Rows asked for at a time; the server's ceiling is undocumented, so the end is told by `hasNext` alone."""

    def __init__(self, rest: RestClient, source: Source) -> None:
        options = source.options
        assert isinstance(options, Options)  # noqa: S101 - the configuration made them from `info.options`
        assert source.timezone is not None  # noqa: S101 - the configuration requires it, see `needs_timezone`
        self._rest = rest
        self._zone = source.timezone
        self._headers = {"X-Auth-Token": options.token.get_secret_value(), "Accept": "application/json"}
        prefix = options.path_prefix.strip("/")
        self._records = f"/{prefix}/records" if prefix else "/records"
        self._doubled = False

    async def list_page(self, window: Window, cursor: str | None) -> Page:
        """Return one page of `records/search`; the cursor is the page's number."""
        number = int(cursor or "1")
        start, end = local_span(window, self._zone)
        reply = await twice(
            lambda: self._rest.call(
                "POST",
                f"{self._records}/search",
                purpose=Purpose.LIST,
                params={"page": number, "pageSize": self.page_size},
                headers=self._headers,
                json={"start": start, "end": end},
            )
        )
        what = f"{self._rest.source.name}: page {number} of the search"
        answer = json_object(reply.body, what, self._rest.clean)
        rows, more = answer.get("records"), answer.get("hasNext")
        more = True if more is None else more
        if not isinstance(rows, list) or not isinstance(more, bool):
            raise BadAnswer(f"{what}: expected a list `records` and true or false in `hasNext`")
        now = self._rest.clock.now()
        read = [_recording(row, self._zone, now) for row in rows]
        return Page(
            tuple(r for r in read if isinstance(r, Recording)),
            str(number + 1) if more and rows else None,
            tuple(u for u in read if isinstance(u, Unreadable)),
        )

    async def describe(self, recording: Recording) -> Recording:
        """Return the recording as it is: the search tells everything, attached data included."""
        return recording

    async def open_media(self, recording: Recording) -> MediaStream:
        """Open the audio by the form of the path that worked last; where it is not found there, by the other."""
        doubled = self._doubled  # others may learn meanwhile: what was asked for is what the other form is not
        try:
            return await self._audio(recording, doubled=doubled)
        except MediaNotFound as missing:
            try:
                stream = await self._audio(recording, doubled=not doubled)
            except MediaNotFound:
                raise missing from None
        self._doubled = not doubled
        return stream

    async def _audio(self, recording: Recording, *, doubled: bool) -> MediaStream:
        path = f"{self._records}{'/records' if doubled else ''}/{segment(recording.id)}/audio"
        headers = {**self._headers, "Accept": "*/*"}
        return await twice(
            lambda: self._rest.open_audio("GET", path, headers=headers, document=self._document), fatal=False
        )

    def _document(self, body: bytes) -> SourceError:
        said = self._rest.clean(text_of(body))
        return BadAnswer(f"{self._rest.source.name}: expected audio, got a document that begins: {said}")


def _recording(row: Any, zone: ZoneInfo, now: datetime) -> Recording | Unreadable:
    """Map a row of the search; only id and start must be readable."""
    record = row if isinstance(row, dict) else {"row": row}
    identity = record.get("id")
    if not isinstance(identity, str) or not identity:
        return Unreadable(None, f"expected text in `id`, got {type(identity).__name__}", record)
    printed = record.get("start") or ""
    if not isinstance(printed, str):
        return Unreadable(identity, f"expected text in `start`, got {type(printed).__name__}", record)
    try:
        started_at, uncertain = start_of(identity, printed, zone, now)
    except ValueError as error:
        return Unreadable(identity, f"the start of the call cannot be read: {error}", record)
    notes = [uncertain] if uncertain else []
    length = _text(record, "duration", notes)
    seconds = hms(length) if length else None
    if length and seconds is None:
        notes.append(f"the duration {length[:40]!r} could not be read")
    unique = _UNIQUE_ID.search(identity)
    return Recording(
        id=identity,
        call=CallFacts(
            started_at=started_at,
            ended_at=end_of(started_at, seconds),
            duration_seconds=seconds,
            direction=_DIRECTIONS.get(_text(record, "direction", notes) or "", Direction.UNKNOWN),
            from_=_text(record, "src_num", notes),
            to=_text(record, "dst_num", notes),
            agent=_text(record, "agent", notes),
            queue=_text(record, "queue", notes),
            call_id=unique[1] if unique else None,
        ),
        record=record,
        vendor_state=_text(record, "status", notes) or "",
        notes=tuple(notes),
    )


def _text(record: dict[str, Any], name: str, notes: list[str]) -> str | None:
    """Return an optional field: absent, null and empty are None, another type is None and a note."""
    value = record.get(name)
    if value is not None and not isinstance(value, str):
        notes.append(f"the field `{name}` holds no text but {type(value).__name__}")
        return None
    return value or None


VENDOR: type[Vendor] = Xivo
