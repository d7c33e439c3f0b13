"""Yeastar S-Series, API v1.1.0 and v2.0.0: recordings found in the call records' CSV, fetched by one-time links.

Every answer has status 200; failures carry an `errno`, whose meanings are the table at the end. The name of
the recording is its identity: a call id may stand in several rows. Printed times are local without offset,
but the call id usually begins with the Unix epoch of the call's start (`worker.times`). Facts: the vendor's
developer guide, "Download Recording Files", "Download CDR" and the error codes.
"""

import asyncio
import hashlib
import math
import re
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any, ClassVar, Literal
from zoneinfo import ZoneInfo

from pydantic import SecretStr

from config.settings import Source, VendorOptions
from storage.sidecar import CallFacts, Direction
from worker.errors import (
    BadAnswer,
    MediaNotFound,
    Retry,
    SessionExpired,
    SourceError,
    StopSource,
    WaitUntil,
)
from worker.limits import Slot
from worker.model import Page, Recording, Unreadable, Window
from worker.rest.client import Purpose, RestClient
from worker.rest.decode import csv_of, json_object, text_of
from worker.times import end_of, local_span, start_of
from worker.vendor import MediaStream, Vendor, VendorInfo

_LOCKED_FOR = 600.0
"""Seconds for which five refused logins lock the caller out."""

_PAUSES = (0.5, 1.0)  # seconds before the call records are asked for a second and a third time
_OVERLAP = timedelta(hours=5)
"""How much more is asked for at both ends of a window: an hour for clock changes, and the longest call likely,
because no page says whether the filter looks at a call's start or its end."""


class YeastarOptions(VendorOptions):
    """Keys of a Yeastar source: the API user set in the phone system, and the API version its firmware has."""

    username: str
    password: SecretStr
    api_version: Literal["v1.1.0", "v2.0.0"] = "v1.1.0"


class _Spent(Retry):
    """A one-time link that was used already, or too late: a new one is needed."""


class _NoRows(MediaNotFound):
    """There are no call records in the span; of a recording it would say that there is none."""


class Yeastar:
    """One S-Series phone system (also K2 and the hosted Cloud PBX)."""

    info: ClassVar[VendorInfo] = VendorInfo(
        name="yeastar",
        title="Yeastar S-Series",
        options=YeastarOptions,
        needs_timezone=True,
        # no page tells how many rows a file of call records may have, so spans are short
        max_window=timedelta(hours=6),
    )

    def __init__(self, rest: RestClient, source: Source) -> None:
        options = YeastarOptions.model_validate(source.options)
        secret = options.password.get_secret_value().encode()
        self._digest = hashlib.md5(secret, usedforsecurity=False).hexdigest()  # what the API takes as password
        rest.hide(self._digest)
        self._rest = rest
        self._name = source.name
        self._zone = source.timezone or ZoneInfo("UTC")
        self._options = options
        self._api = f"/api/{options.api_version}"
        self._session = rest.session(self._login, identity=f"{options.api_version}\n{options.username}\n{self._digest}")

    async def list_page(self, window: Window, cursor: str | None) -> Page:  # noqa: ARG002 - one page is all there is
        """Return all recordings of the window as one page. Calls without a recording are not among them."""
        try:
            body = await self._session.run(lambda token: self._call_records(token, window))
        except _NoRows:
            return Page(())
        # reading and grouping a large file must not hold up the other sources
        return await asyncio.to_thread(self._page, body)

    async def describe(self, recording: Recording) -> Recording:
        """Return the recording as it is: the row of the call records is all there is."""
        return recording

    async def open_media(self, recording: Recording) -> MediaStream:
        """Get a one-time link and use it at once. MediaNotFound where the file is not there (yet)."""

        async def opened(token: str) -> MediaStream:
            try:
                return await self._audio(token, recording.id)
            except _Spent:
                pass
            try:
                return await self._audio(token, recording.id)
            except _Spent as error:  # the guide to v1.0.1 gives this code for a file that does not exist
                raise MediaNotFound(f"{error.message}; a second one-time link was refused as well") from error

        return await self._session.run(opened)

    # one-time links: the random lives for 30 seconds and serves once, so it is got in the slot that uses it

    async def _audio(self, token: str, name: str) -> MediaStream:
        slot = await self._rest.slot()
        try:
            told = await self._post("recording/get_random", token, {"recording": name}, Purpose.DETAIL, slot)
            stream = await self._rest.open_audio(
                "GET",
                f"{self._api}/recording/download",
                document=lambda body: self._refusal(body, "recording/download"),
                params={"recording": name, "random": self._random(told), "token": token},
                slot=slot,
            )
        except BaseException:
            await slot.release()
            raise
        stream.adopt(slot)
        return stream

    async def _call_records(self, token: str, window: Window) -> bytes:
        """Return the CSV of the window. A link is spent by its first use, so each try gets its own."""
        for pause in _PAUSES:
            with suppress(Retry):
                return await self._csv(token, window)
            await self._rest.clock.sleep(pause)
        return await self._csv(token, window)

    async def _csv(self, token: str, window: Window) -> bytes:
        start, end = local_span(window, self._zone, widen=_OVERLAP)
        extension = "extid" if self._options.api_version == "v1.1.0" else "number"
        asked = {extension: "all", "starttime": start, "endtime": end}
        slot = await self._rest.slot()
        try:
            told = await self._post("cdr/get_random", token, asked, Purpose.LIST, slot)
            reply = await self._rest.call(
                "GET",
                f"{self._api}/cdr/download",
                purpose=Purpose.LIST,
                params={**asked, "token": token, "random": self._random(told)},
                slot=slot,
                tries=1,  # the link is spent after that
            )
        finally:
            await slot.release()
        if reply.body.lstrip()[:1] == b"{":
            raise self._refusal(reply.body, "cdr/download")
        return reply.body

    def _random(self, told: dict[str, Any]) -> str:
        value = told.get("random")
        if not isinstance(value, str) or not value:
            raise BadAnswer(f"{self._name}: get_random: the answer holds no `random`")
        return value

    # logging in and answers

    async def _login(self) -> str:
        body = {"username": self._options.username, "password": self._digest}
        if self._options.api_version == "v1.1.0":
            body["port"] = "8260"  # required: where events would be sent; nothing listens, clients do the same
        reply = await self._rest.call("POST", f"{self._api}/login", purpose=Purpose.LOGIN, json=body)
        try:
            token = self._checked(reply.body, "login").get("token")
        except WaitUntil as error:  # locked: nobody may knock again before that is over
            await self._rest.pause(error.seconds, error.message)
            raise
        if not isinstance(token, str) or not token:
            raise BadAnswer(f"{self._name}: login: the answer holds no `token`")
        return token

    async def _post(self, path: str, token: str, body: dict[str, str], purpose: Purpose, slot: Slot) -> dict[str, Any]:
        """Make one try: whoever tries again begins with a new slot, so that a pause the source asked for is kept."""
        reply = await self._rest.call(
            "POST", f"{self._api}/{path}", purpose=purpose, params={"token": token}, json=body, slot=slot, tries=1
        )
        return self._checked(reply.body, path)

    def _checked(self, body: bytes, what: str) -> dict[str, Any]:
        """Return a successful answer; raise what the errno of any other means."""
        told = json_object(body, f"{self._name}: {what}", self._rest.clean)
        if str(told.get("status")).lower() == "success":
            return told
        raise self._error(told, what)

    def _refusal(self, body: bytes, what: str) -> SourceError:
        """Return what a document in place of a file means."""
        try:
            told = json_object(body, f"{self._name}: {what}", self._rest.clean)
        except BadAnswer:
            excerpt = self._rest.clean(text_of(body))
            return BadAnswer(f"{self._name}: {what}: a document came in place of the file: {excerpt}")
        return self._error(told, what)

    def _error(self, told: dict[str, Any], what: str) -> SourceError:
        code = str(told.get("errno", "")).strip()[:20]
        if code not in _ERRNO:
            said = self._rest.clean(str(told))
            return BadAnswer(f"{self._name}: {what}: an answer without a known errno: {said}")
        make, meaning = _ERRNO[code]
        return make(f"{self._name}: {what}: errno {code}, {meaning}")

    # rows

    def _page(self, body: bytes) -> Page:
        rows, faults = csv_of(body, _COLUMNS, f"{self._name}: cdr/download", self._rest.clean)
        by_name: defaultdict[str, list[dict[str, str]]] = defaultdict(list)
        for row in rows:
            if row["recording"].strip():
                by_name[row["recording"]].append(row)
        read = [self._recording(name, group) for name, group in by_name.items()]
        return Page(
            recordings=tuple(r for r in read if isinstance(r, Recording)),
            unreadable=(
                *(r for r in read if isinstance(r, Unreadable)),
                *(Unreadable(None, f"cdr/download: {fault}", {}) for fault in faults),
            ),
        )

    def _recording(self, name: str, rows: list[dict[str, str]]) -> Recording | Unreadable:
        """Read the rows that name one recording; transfers and forwards give several. The earliest speaks for it."""
        record: dict[str, Any] = {**rows[0]} if len(rows) == 1 else {**rows[0], "rows": rows}
        started: list[tuple[datetime, int, str | None]] = []
        fault = ""
        for number, row in enumerate(rows):
            try:
                start, note = start_of(row["callid"], row["timestart"], self._zone, self._rest.clock.now())
            except ValueError as error:
                fault = f"timestart: {error}"
            else:
                started.append((start, number, note))
        if not started:
            return Unreadable(name, fault, record)
        start, number, note = min(started)
        row = rows[number]
        seconds = _seconds(row.get("callduraction", ""))
        return Recording(
            id=name,
            call=CallFacts(
                started_at=start,
                ended_at=end_of(start, seconds),
                duration_seconds=seconds,
                direction=_direction(row.get("type", ""), name),
                from_=row.get("callfrom", "").strip() or None,
                to=row.get("callto", "").strip() or None,
                call_id=row["callid"].strip() or None,
            ),
            record=record,
            notes=(note,) if note else (),
        )


def _seconds(text: str) -> float | None:
    """Read a duration (the column `callduraction`, the vendor's spelling); None where it is none."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and 0 <= value < 10**7 else None


def _direction(told: str, name: str) -> Direction:
    """Read `type`; for Callback and Transfer, which say nothing of it, the end of the recording's name."""
    with_type = _NAMED_TYPE.search(name)
    kind = told.strip().lower()
    if kind not in _DIRECTIONS and with_type:
        kind = with_type[1].lower()
    return _DIRECTIONS.get(kind, Direction.UNKNOWN)


def _locked(message: str) -> SourceError:
    return WaitUntil(message, _LOCKED_FOR)


_COLUMNS = frozenset({"callid", "timestart", "recording"})
_DIRECTIONS = {"inbound": Direction.INBOUND, "outbound": Direction.OUTBOUND, "internal": Direction.INTERNAL}
_NAMED_TYPE = re.compile(r"-([A-Za-z]+)\.[A-Za-z0-9]+$")

_ERRNO: dict[str, tuple[Callable[[str], SourceError], str]] = {
    "10002": (BadAnswer, "the request was not understood"),
    "10003": (StopSource, "this API call is not supported; check `api_version` and the firmware"),
    "10004": (BadAnswer, "a required parameter is empty"),
    "20000": (BadAnswer, "the request is not JSON"),
    "20001": (BadAnswer, "only POST is accepted"),
    "20002": (_locked, "the login is locked after too many failures; it opens by itself or in the web interface"),
    "20003": (StopSource, "wrong user or password; check `username` and `password` (those of the API user)"),
    "20004": (SessionExpired, "no such token"),
    "20005": (SessionExpired, "the token is empty"),
    "20006": (SessionExpired, "the token timed out"),
    "20007": (BadAnswer, "the request holds no data"),
    "20008": (StopSource, "the event port was refused; check `api_version`"),
    "20009": (BadAnswer, "the request is empty"),
    "20010": (Retry, "the request could not be handed to the API service"),
    "20011": (StopSource, "the heartbeat could not be configured; check the API settings of the phone system"),
    "20012": (_Spent, "the one-time link to the recording is not valid"),
    "20014": (MediaNotFound, "the recording file does not exist"),
    "20015": (StopSource, "`allowedip` was refused; check the API settings of the phone system"),
    "20019": (BadAnswer, "the times of the call records were not understood"),
    "20020": (_Spent, "the one-time link to the call records is not valid"),
    "20021": (_NoRows, "there are no call records"),
    "30001": (Retry, "the phone system is out of memory"),
    "30003": (Retry, "the API service is not running"),
}
"""What to do about each errno (the vendor's tables of error codes; texts shortened)."""

VENDOR: type[Vendor] = Yeastar
