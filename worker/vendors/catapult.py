"""Bandwidth Catapult v1: JSON over Basic credentials, listings by page and Link header, media by link.

The API filters recordings neither by time nor by state and promises no order, so a listing is always the
whole account. A recording names no parties; they are in the call it belongs to. Documented limit: one
request a second, 429 with `X-RateLimit-Reset` in epoch milliseconds (`worker.rest.waiting`). Facts: the
v1 reference, methods/recordings and methods/media.
"""

import base64
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

from pydantic import SecretStr
from yarl import URL

from config.settings import Source, VendorOptions
from storage.sidecar import CallFacts, Direction
from worker.errors import BadAnswer, GiveUp, MediaNotFound, NotYet, SourceError, StopSource
from worker.model import Page, Readiness, Recording, Unreadable, Window
from worker.rest.client import Purpose, Reply, RestClient, segment, twice
from worker.rest.decode import json_object, json_of, text_of
from worker.rest.links import links_of
from worker.times import parse_iso
from worker.vendor import MediaStream, Vendor, VendorInfo


class CatapultOptions(VendorOptions):
    """Keys of a Catapult source: the user id is part of every path, token and secret are the login."""

    user_id: str
    token: SecretStr
    secret: SecretStr


class Catapult:
    """One Catapult account."""

    info: ClassVar[VendorInfo] = VendorInfo(
        name="catapult",
        title="Bandwidth Catapult v1",
        options=CatapultOptions,
        needs_timezone=False,
        max_window=None,
        default_requests_per_second=0.95,
    )
    page_size: ClassVar[int] = 1000
    """Recordings asked for at a time; the documented maximum."""

    def __init__(self, rest: RestClient, source: Source) -> None:
        options = CatapultOptions.model_validate(source.options)
        pair = f"{options.token.get_secret_value()}:{options.secret.get_secret_value()}"
        credentials = base64.b64encode(pair.encode()).decode()
        rest.hide(credentials)
        self._rest = rest
        self._name = source.name
        self._headers = {"Authorization": f"Basic {credentials}"}
        self._recordings = f"/v1/users/{segment(options.user_id)}/recordings"

    async def list_page(self, window: Window, cursor: str | None) -> Page:  # noqa: ARG002 - the API has no such filter
        """Return one page of everything the account has; the window cannot be asked for.

        The cursor is the path and query of the page, below the origin.
        """
        if cursor is not None and not cursor.startswith("/"):
            raise StopSource(cursor)
        path = cursor or self._rest.own(f"{self._rest.source.url.rstrip('/')}{self._recordings}?{self._query(0)}")
        reply = await self._get(path, Purpose.LIST)
        rows = json_of(reply.body, f"{self._name}: recordings", self._rest.clean)
        if not isinstance(rows, list):
            raise BadAnswer(f"{self._name}: recordings: expected a JSON array, got {type(rows).__name__}")
        read = [self._row(row) for row in rows]
        return Page(
            recordings=tuple(r for r in read if isinstance(r, Recording)),
            next=self._following(path, reply, len(rows)),
            unreadable=tuple(r for r in read if isinstance(r, Unreadable)),
        )

    async def describe(self, recording: Recording) -> Recording:
        """Add the parties, which only the call resource tells. It is kept in the record as `call_details`.

        The times stay the recording's own: a call begins before it is recorded, and what was listed decides
        where the recording is kept. A call that is gone or cannot be read becomes a note.
        """
        link = recording.record.get("call")
        if not isinstance(link, str) or not link:
            return recording.noting("the recording names no call, so its parties are unknown")
        try:
            reply = await self._get(self._rest.own(link), Purpose.DETAIL)
            call = json_object(reply.body, f"{self._name}: call", self._rest.clean)
        except (MediaNotFound, GiveUp, NotYet, BadAnswer) as error:
            return recording.noting(f"the parties are unknown: {error.message}")
        facts = recording.call.model_copy(
            update={
                "from_": _text(call, "from"),
                "to": _text(call, "to"),
                "direction": _DIRECTIONS.get(_text(call, "direction") or "", Direction.UNKNOWN),
                "call_id": _text(call, "id") or recording.call.call_id,
            }
        )
        return replace(recording, call=facts, record={**recording.record, "call_details": call})

    async def open_media(self, recording: Recording) -> MediaStream:
        """Open what the `media` link leads to. NotYet while there is none, GiveUp where it leads elsewhere."""
        if not recording.media:
            raise NotYet(f"{self._name}: recording {self._rest.clean(recording.id)} has no media link yet")
        path = self._rest.own(recording.media)
        return await twice(
            lambda: self._rest.open_audio("GET", path, document=self._refused, headers=self._headers, absolute=True),
            fatal=False,
        )

    async def _get(self, path: str, purpose: Purpose) -> Reply:
        return await twice(
            lambda: self._rest.call("GET", path, purpose=purpose, headers=self._headers, absolute=True),
            fatal=purpose is Purpose.LIST,
        )

    def _query(self, page: int) -> str:
        return f"page={page}&size={self.page_size}"

    def _following(self, path: str, reply: Reply, rows: int) -> str | None:
        """Return the next page's path. Without any Link header pages are counted on until one is not full."""
        links = links_of(reply.headers)
        if "next" in links:
            try:
                return self._rest.own(links["next"], reply.url)
            except GiveUp as error:
                return error.message  # no path: refused when it is asked for, so that this page still counts
        here = URL(path, encoded=True)
        page = here.query.get("page", "")
        if links or rows < self.page_size or not _NUMBER.fullmatch(page):
            return None
        return str(here.update_query(page=int(page) + 1))

    def _row(self, row: Any) -> Recording | Unreadable:
        if not isinstance(row, dict):
            return Unreadable(None, "a listed recording is not a JSON object", {"value": row})
        name = _text(row, "id")
        if name is None:
            return Unreadable(None, "a listed recording has no id", row)
        try:
            started = parse_iso(_text(row, "startTime") or "")
        except ValueError as error:
            return Unreadable(name, f"startTime: {error}", row)
        state = _text(row, "state") or ""
        notes: tuple[str, ...] = ()
        ended = None
        if row.get("endTime") is not None:
            try:
                ended = parse_iso(_text(row, "endTime") or "")
            except ValueError as error:
                notes = (f"endTime: {error}",)
        seconds = (ended - started).total_seconds() if ended else None
        if seconds is not None and seconds < 0:
            ended, seconds, notes = None, None, ("endTime is before startTime and was left out",)
        call = _text(row, "call")
        return Recording(
            id=name,
            call=CallFacts(
                started_at=started,
                ended_at=ended,
                duration_seconds=seconds,
                call_id=call.rstrip("/").rsplit("/", 1)[-1] if call else None,
            ),
            record=row,
            # a state that is not documented is waited for, and ends as a gap when it stays
            readiness=_STATES.get(state.lower(), Readiness.NOT_YET),
            vendor_state=state,
            media=_text(row, "media"),
            notes=notes,
        )

    def _refused(self, body: bytes) -> SourceError:
        return BadAnswer(f"{self._name}: media: a document came in place of audio: {self._rest.clean(text_of(body))}")


def _text(row: Mapping[str, Any], name: str) -> str | None:
    """Return a field that is a text with something in it; None for anything else."""
    value = row.get(name)
    return value if isinstance(value, str) and value.strip() else None


_STATES = {
    "recording": Readiness.NOT_YET,
    "saving": Readiness.NOT_YET,  # finished, not available to download yet
    "complete": Readiness.READY,
    "error": Readiness.NEVER,  # could not be uploaded
}
_NUMBER = re.compile(r"[0-9]{1,9}")
_DIRECTIONS = {"in": Direction.INBOUND, "out": Direction.OUTBOUND}

VENDOR: type[Vendor] = Catapult
