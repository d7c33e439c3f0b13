"""Verba (Verint Verba): one address, actions, XML; errors come with status 200, in place of audio too.

Credentials are posted as a form, so that API key and token stand in no URL and no access log. A token lives
an hour and goes with the servlet session's cookie. Times carry no offset: they are in the API user's own zone,
which the source's `timezone` names (GMT where the key alone is enough). Root and nesting of the documents are
not documented, so elements are found by name anywhere. Facts: the vendor's pages "API authentication", "Search
Calls", "Get Call Information" and "Get Media", and public client code; nothing was recorded from a live system.
"""

import base64
import hashlib
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, ClassVar, Self, TypeVar
from xml.etree.ElementTree import Element
from zoneinfo import ZoneInfo

from pydantic import SecretStr, model_validator

from config.settings import Source, VendorOptions
from storage.sidecar import CallFacts, Direction, GapReason
from worker.errors import BadAnswer, GiveUp, LoginPage, MediaNotFound, NotYet, SessionExpired, SourceError, StopSource
from worker.model import Page, Readiness, Recording, Unreadable, Window
from worker.rest.client import Params, Purpose, RestClient, twice
from worker.rest.decode import text_of, xml_of
from worker.rest.elements import fields_of, first_of, plain, tag_of
from worker.times import end_of, hms, local_span, local_to_utc
from worker.vendor import MediaStream, Vendor, VendorInfo

_API = "/verba/api"
_FORMATS = ("%Y-%m-%d %H:%M:%S.%f", "%Y-%m-%d %H:%M:%S", "%Y-%m-%d %H:%M")
_LONGEST_CALL = timedelta(hours=24)
"""Whether the search goes by the start or the end of calls is not documented; so it asks that much further."""

_ID_NAMES = ("callID", "ccdr_id")
"""Names of the id parameter: the vendor's page, and a newer revision of its table."""

_NOT_UNDERSTOOD = re.compile(r"error -(20|30|41|42|43)\b|status 40[0345]\b")
_LOGIN = re.compile(r"(?i)\blog[ -]?[io]n\b|\bsign[ -]?in\b|authenticat|(session|token)( has| is)? (expired|invalid)")
_NO_SOUND = frozenset({"im", "sms", "poll", "file_share", "whiteboard"})
"""Modalities (page "Metadata XML fields") that hold no sound; video and screens may, so their bytes decide."""

T = TypeVar("T")


class VerbaOptions(VendorOptions):
    """Keys of a Verba source. Without a login the API key alone must be enough, and times are in GMT."""

    api_key: SecretStr
    username: str | None = None
    password: SecretStr | None = None

    @model_validator(mode="after")
    def _both_or_neither(self) -> Self:
        if (self.username is None) != (self.password is None):
            raise ValueError("username and password belong together: give both, or neither for a key without login")
        return self


class _NoMedia(NotYet):
    """The call is known, its media are not there (yet): recorders hold files until a policy uploads them."""


@dataclass(frozen=True, slots=True)
class _Login:
    """What a session is made of; written as one text so that it can be kept as one token."""

    token: str
    cookie: str = ""

    @classmethod
    def read(cls, kept: str) -> "_Login":
        return cls(*kept.split("\n", 1))

    def write(self) -> str:
        return f"{self.token}\n{self.cookie}"


class Verba:
    """One Verba server (or one environment of it: the API key says which)."""

    info: ClassVar[VendorInfo] = VendorInfo(
        name="verba",
        title="Verint Verba",
        options=VerbaOptions,
        needs_timezone=True,
        max_window=timedelta(days=1),
        cookies=True,
    )
    page_size: ClassVar[int] = 100
    """Rows asked for at a time."""

    def __init__(self, rest: RestClient, source: Source) -> None:
        options = VerbaOptions.model_validate(source.options)
        self._rest = rest
        self._name = source.name
        self._zone = source.timezone or ZoneInfo("UTC")
        self._patience = source.give_up_after
        self._key = options.api_key.get_secret_value()
        self._fixed = {self._key}
        self._secrets = self._fixed
        self._credentials = ""
        self._id_names: dict[str, str] = {}  # by action: which name worked
        self._in_url = self._way_known = False
        self._session = None
        if options.username is not None and options.password is not None:
            password = options.password.get_secret_value()
            self._credentials = base64.b64encode(f"{options.username}:{password}".encode()).decode()
            rest.hide(self._credentials)
            self._fixed |= {password, self._credentials}
            self._session = rest.session(self._log_in, identity=f"{self._key}\n{options.username}\n{password}")

    async def list_page(self, window: Window, cursor: str | None) -> Page:
        """Return one page of the recorded calls that started in the window, the oldest first.

        The cursor is the number of rows before the page and a mark of the page before. An empty page is the last
        one: a server may give shorter pages than it was asked for, or know no pages and repeat the first.
        """
        number, _, before = (cursor or "0").partition(" ")
        first = int(number)
        start, end = local_span(Window(window.start, window.end + _LONGEST_CALL), self._zone)
        params: Params = {
            "start": start,
            "end": end,
            "status": "recorded",
            "orderby": "start_time",
            "order": "asc",
            "pagefirst": first,
            "pagelen": self.page_size,
        }
        try:
            root = await self._ask("SearchCalls", Purpose.LIST, params)
        except MediaNotFound:  # "Call cannot be found": so there is none
            return Page(())
        rows = _calls(root)
        if not rows and not _is_empty_listing(root):
            raise BadAnswer(f"{self._name}: SearchCalls: neither calls nor an empty list of them, but <{tag_of(root)}>")
        read = [self._row(row) for row in rows]
        head = hashlib.sha256(repr(plain(rows[0])).encode()).hexdigest() if rows else ""
        if cursor and head == before:  # this server knows no pages: the first answer was everything
            if len(rows) == self.page_size:  # unless it was cut where it was asked to be
                raise BadAnswer(f"{self._name}: SearchCalls gives its first {len(rows)} calls again in place of more")
            return Page(())
        return Page(
            recordings=tuple(r for r in read if isinstance(r, Recording)),
            next=f"{first + len(rows)} {head}" if rows else None,
            unreadable=tuple(r for r in read if isinstance(r, Unreadable)),
        )

    async def describe(self, recording: Recording) -> Recording:
        """Add what GetCallInformation tells: it is kept in the record as `call_information`.

        It fills in what the search left out and changes nothing. An answer that is no information is a note.
        """
        if _modality(recording.record) in _NO_SOUND:
            return recording
        try:
            root = await self._by_id(
                "GetCallInformation",
                lambda name: self._ask("GetCallInformation", Purpose.DETAIL, {name: recording.id, "returnMetadata": 1}),
            )
        except (GiveUp, MediaNotFound, NotYet, BadAnswer) as error:
            return recording.noting(f"no call information: {error.message}")
        found = next(
            (row for row in _calls(root) if first_of(fields_of(row), "ccdr_id", "id") in (recording.id, None)), None
        )
        if found is None:
            return recording.noting("no call information: the answer is about no call, or another one")
        told, notes = self._facts(recording.started_at, fields_of(found))
        listed = recording.call.model_dump(exclude_none=True, exclude={"direction"})
        if recording.call.direction is not Direction.UNKNOWN:
            listed["direction"] = recording.call.direction
        return replace(
            recording,
            call=told.model_copy(update=listed),
            record={**recording.record, "call_information": plain(found)},
            notes=recording.notes + tuple(note for note in notes if note not in recording.notes),
        )

    async def open_media(self, recording: Recording) -> MediaStream:
        """Open the original file. NotYet while the server has none, a gap `media_missing` after `give_up_after`.

        What the server says to be a chat, a poll or a shared file is a gap `not_audio` and is not asked for.
        """
        modality = _modality(recording.record)
        if modality in _NO_SOUND:
            raise GiveUp(f"{self._name}: the record is of modality {modality!r} and has no sound", GapReason.NOT_AUDIO)
        try:
            return await self._by_id("GetMedia", lambda name: self._open({"action": "GetMedia", name: recording.id}))
        except _NoMedia as error:
            ended = recording.call.ended_at or recording.started_at
            if self._rest.clock.now() < ended + self._patience:
                raise
            raise GiveUp(f"{error.message} `give_up_after` has passed", GapReason.MEDIA_MISSING) from error

    # requests

    async def _ask(self, action: str, purpose: Purpose, params: Params) -> Element:
        async def asked(login: _Login | None) -> Element:
            form, headers = self._authorisation(login)
            way = self._way({"action": action, **params}, form)
            reply = await self._rest.call(path=_API, purpose=purpose, headers=headers, **way)
            return self._parsed(reply.body, action, purpose)

        return await self._either_way(lambda: self._logged_in(asked))

    def _way(self, params: Params, form: dict[str, str]) -> dict[str, Any]:
        """Return how parameters travel: secrets in a form, or in the URL for a server that reads nothing else."""
        if self._in_url:
            return {"method": "GET", "params": {**params, **form}}
        return {"method": "POST", "params": params, "form": {**params, **form}}

    async def _either_way(self, call: Callable[[], Awaitable[T]], *, proves: bool = True) -> T:
        """Make a call; a server that never understood a form is asked once more, with everything in the URL."""
        try:
            answer = await call()
        except StopSource as error:
            if self._way_known or not _NOT_UNDERSTOOD.search(error.message):
                raise
            refusal = error
        else:
            self._way_known |= proves  # a login may have read its header alone
            return answer
        self._in_url = self._way_known = True
        try:
            return await call()
        except MediaNotFound:  # understood: there is no such call
            raise
        except SourceError:
            self._in_url = self._way_known = False
            raise refusal from None

    async def _open(self, params: Params) -> MediaStream:
        async def opened(login: _Login | None) -> MediaStream:
            form, headers = self._authorisation(login)
            way = self._way(params, form)
            return await self._rest.open_audio(path=_API, document=self._refused, headers=headers, **way)

        return await self._logged_in(opened)

    async def _by_id(self, action: str, call: Callable[[str], Awaitable[T]]) -> T:
        """Make a call with the name of the id parameter that this server's revision knows."""
        known = self._id_names.get(action)
        errors: list[SourceError] = []
        for name in (known,) if known else _ID_NAMES:
            try:
                result = await call(name)
            except (GiveUp, MediaNotFound, BadAnswer) as error:
                errors.append(error)
            else:
                self._id_names[action] = name
                return result
        # "invalid parameters" about the one name says less than whatever came of the other
        raise next((error for error in errors if not isinstance(error, GiveUp)), errors[0])

    async def _logged_in(self, call: Callable[[_Login | None], Awaitable[T]]) -> T:
        if self._session is not None:
            return await self._session.run(lambda kept: call(_Login.read(kept)))
        return await twice(lambda: call(None))

    async def _log_in(self) -> str:
        return await self._either_way(self._request_token, proves=False)

    async def _request_token(self) -> str:
        headers = {"Authorization": f"Basic {self._credentials}"}
        way = self._way({"action": "RequestToken"}, {"apiKey": self._key})
        reply = await self._rest.call(path=_API, purpose=Purpose.LOGIN, headers=headers, **way)
        root = self._parsed(reply.body, "RequestToken", Purpose.LOGIN)
        token = next((e.get("token") or e.text for e in root.iter() if e.get("token") or tag_of(e) == "token"), None)
        if not token or not token.strip():
            raise BadAnswer(f"{self._name}: RequestToken: the answer holds no token")
        told = {tag_of(e): e.text.strip() for e in root.iter() if e.text}
        session, cookie = told.get("sessionid", ""), told.get("sessioncookiename", "JSESSIONID")
        usable = re.fullmatch(r"[\w.!~+/=-]+", session, re.ASCII) and re.fullmatch(r"[\w.-]+", cookie, re.ASCII)
        return _Login(token.strip(), f"{cookie}={session}" if usable else "").write()

    def _authorisation(self, login: _Login | None) -> tuple[dict[str, str], dict[str, str]]:
        """Return form fields and headers that carry the API key and the session."""
        if login is None:
            return {"apiKey": self._key}, {}
        session = {login.token, login.cookie.partition("=")[2]}
        for secret in session:
            self._rest.hide(secret)
        self._secrets = self._fixed | session
        return {"apiKey": self._key, "token": login.token}, {"Cookie": login.cookie} if login.cookie else {}

    # answers

    def _parsed(self, body: bytes, action: str, purpose: Purpose) -> Element:
        """Read a document, credentials it repeats taken out; raise the error it is, if it is one."""
        what = f"{self._name}: {action}"
        for secret in sorted(self._secrets, key=len, reverse=True):
            if len(secret) >= 8:  # a shorter one would blank out half the document
                body = body.replace(secret.encode(), b"***")
        body = body.removeprefix(b"\xef\xbb\xbf").strip()
        try:
            root = xml_of(body, what, self._rest.clean)
            if tag_of(root) == "html":
                raise BadAnswer(f"{what}: a web page came in place of an answer")  # noqa: TRY301 - same way out
        except BadAnswer as error:
            if purpose is not Purpose.LOGIN and _LOGIN.search(text_of(body)):
                raise LoginPage(f"{what}: a login page came in place of an answer") from error
            raise
        response = next((e for e in root.iter() if tag_of(e) == "response"), root)
        said = next(("".join(e.itertext()) for e in root.iter() if tag_of(e) == "errormessage"), "")
        code = response.get("code", "" if said else "0").strip()
        if code != "0":
            raise _error(code, self._rest.clean(said or response.get("description", "")), what, purpose)
        return root

    def _refused(self, body: bytes) -> SourceError:
        """Return the error that a document in place of audio is."""
        try:
            root = self._parsed(body, "GetMedia", Purpose.MEDIA)
        except SourceError as error:
            return error
        return BadAnswer(f"{self._name}: GetMedia: <{self._rest.clean(tag_of(root))}> came in place of audio")

    def _row(self, row: Element) -> Recording | Unreadable:
        fields, record = fields_of(row), plain(row)
        name = first_of(fields, "ccdr_id", "id")
        if name is None:
            return Unreadable(None, "a listed call has no ccdr_id", record)
        try:
            started, doubt = local_to_utc(first_of(fields, *_STARTS) or "", self._zone, _FORMATS)
        except ValueError as error:
            return Unreadable(name, f"start_time: {error}", record)
        call, notes = self._facts(started, fields)
        state = row.get("state", "1")
        return Recording(
            id=name,
            call=call,
            record=record,
            # 1 is finished; what another state means is not documented, so it is waited for and never forgotten
            readiness=Readiness.READY if state == "1" else Readiness.NOT_YET,
            vendor_state=f"state {state}",
            notes=((doubt,) if doubt else ()) + notes,
        )

    def _facts(self, started: datetime, fields: Mapping[str, str]) -> tuple[CallFacts, tuple[str, ...]]:
        """Read what a call's fields say of it, and what is to be noted; any may be missing."""
        seconds = hms(fields.get("duration", ""))
        printed = first_of(fields, *(name.replace("start", "end") for name in _STARTS))
        ended, notes = self._end(started, seconds, printed)
        if seconds is None and ended is not None:
            seconds = (ended - started).total_seconds()
        told = (_DIRECTIONS.get(fields.get(name, "").lower()) for name in _DIRECTION_FIELDS)
        facts = CallFacts(
            started_at=started,
            ended_at=ended,
            duration_seconds=seconds,
            direction=next(filter(None, told), Direction.UNKNOWN),
            from_=first_of(fields, "source_caller_id", "source_name"),
            to=first_of(fields, "destination_caller_id", "destination_name"),
            agent=first_of(fields, "verba_user_name", "recorded_party"),
            call_id=first_of(fields, "platform_call_id", "native_call_id", "native_id"),
        )
        return facts, notes

    def _end(
        self, started: datetime, seconds: float | None, printed: str | None
    ) -> tuple[datetime | None, tuple[str, ...]]:
        """Return the printed end; start plus duration where that cannot be read or a clock change blurs it."""
        computed = end_of(started, seconds)
        if printed is None:
            return computed, ()
        try:
            ended, doubt = local_to_utc(printed, self._zone, _FORMATS)
        except ValueError as error:
            return computed, (f"end_time: {error}",)
        if doubt and computed is not None:
            return computed, ()
        if ended < started:
            return computed, (f"the printed end {printed[:40]} is before the start and was left out",)
        return ended, (doubt.replace("printed start", "printed end"),) if doubt else ()


def _error(code: str, said: str, what: str, purpose: Purpose) -> SourceError:
    """Return what an error code means. Only 2 is in the vendor's text, the others are known from client code."""
    told = f"{what}: error {code or 'without a code'}: {said or 'no message'}"
    if code in ("-10", "-40", "-41", "-60"):
        return StopSource(f"{told}; check `api_key`, user, password and the API user's rights")
    if purpose is Purpose.LOGIN:
        return BadAnswer(told) if code == "-1" else StopSource(f"{told}; the login was refused")
    if code in ("-42", "-43"):
        return SessionExpired(told)
    if code == "-70" and purpose is Purpose.MEDIA:
        return _NoMedia(told)
    if code == "-50" or "cannot be found" in said.lower():
        return MediaNotFound(told)
    if code in ("-20", "-30"):
        if purpose is Purpose.LIST:
            return StopSource(f"{told}; this server's API is not the one that is known")
        return GiveUp(told, GapReason.VENDOR_ERROR)
    return SessionExpired(told) if _LOGIN.search(said) else BadAnswer(told)


def _calls(root: Element) -> list[Element]:
    return [element for element in root.iter() if tag_of(element) == "verbacdr"]


def _is_empty_listing(root: Element) -> bool:
    """Tell whether a document without calls says so itself, rather than being something else."""
    if any(element.get("rowcount", "0").strip() not in ("", "0") for element in root.iter()):
        return False
    return any(tag_of(e) == "verbacdrlist" or (tag_of(e) == "response" and e.get("code") == "0") for e in root.iter())


def _modality(record: Mapping[str, Any]) -> str:
    """Return a record's modality in lower case, from the search or from the call information; empty where unknown."""
    information = record.get("call_information", {})
    told = (row.get(name) for row in (record, information) for name in ("modality", "modality_id"))
    return next((text.strip().lower() for text in told if isinstance(text, str)), "")


_STARTS = ("start_time", "starttime", "startdate")
_DIRECTION_FIELDS = ("userdirection", "defdirection", "direction", "direction_id")
_DIRECTIONS = {
    "0": Direction.INTERNAL,
    "1": Direction.INBOUND,  # what the other numbers mean is not documented
    "internal": Direction.INTERNAL,
    "incoming": Direction.INBOUND,
    "inbound": Direction.INBOUND,
    "outgoing": Direction.OUTBOUND,
    "outbound": Direction.OUTBOUND,
}

VENDOR: type[Vendor] = Verba
