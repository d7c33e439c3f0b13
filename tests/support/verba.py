"""A simulated Verba (Verint Verba) HTTP Business API: one address, actions, XML, 200 on every error.

Times are printed in the wall time of `timezone`, without offset: the API user's own zone. Tokens live an hour
by `now()` and need the servlet session's cookie beside them. Media know no Range. Beyond `Call`:
`extra["modality"]` is the printed modality (voice), `extra["row"]` and `extra["detail"]` change printed fields,
None leaves one out. States: `saving` and `error` are finished calls without media, `recording` is ongoing.
"""

import base64
import uuid
from datetime import datetime, timedelta
from typing import Any, ClassVar
from xml.etree.ElementTree import Element, SubElement, tostring
from zoneinfo import ZoneInfo

from aiohttp import web

from tests.support.simulator import Call, Simulator

_TOKEN_LIVES = timedelta(hours=1)
_FORMATS = ("%Y-%m-%d %H:%M", "%Y-%m-%d %H:%M:%S", "%Y-%m-%d %H:%M:%S.%f")
_PURPOSES = {"RequestToken": "login", "SearchCalls": "list", "GetCallInformation": "detail", "GetMedia": "media"}
_DIRECTIONS = {"internal": "0", "inbound": "1", "outbound": "2"}
_NAMES = {"internal": "Internal", "inbound": "Incoming", "outbound": "Outgoing"}


class Failed(Exception):
    """Ends a request with an error document."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message


class SimulatedVerba(Simulator):
    vendor: ClassVar[str] = "verba"
    timezone: ClassVar[str | None] = "Europe/Budapest"
    key_only: ClassVar[bool] = False
    """Whether the API key alone is enough; times are printed in GMT then."""
    api_key = "74c8eea0-50c6-40b2-9f3e-252ed501c3c8"
    username = "archive"
    password = "verba-sample-password"

    def __init__(self, calls: list[Call] | None = None) -> None:
        self.id_names = ("callID", "ccdr_id")
        """Which names of the id parameter this server's revision knows."""
        self.time_tag = "start_time"
        """How the search calls its times: start_time, starttime or startdate."""
        self.session_in_answer = True
        """Whether the answer to a login names the session; the Set-Cookie header always does."""
        self._tokens: dict[str, tuple[datetime, str]] = {}
        super().__init__(calls)

    # what a simulator is asked for

    def routes(self) -> list[web.RouteDef]:
        return [web.get("/verba/api", self._answer), web.post("/verba/api", self._answer)]

    def purpose_of(self, request: web.Request) -> tuple[str, str | None]:
        told = next((request.query[name] for name in ("callID", "ccdr_id") if name in request.query), None)
        return _PURPOSES.get(request.query.get("action", ""), "other"), told

    def new_id(self, call: Call) -> str:
        return str(uuid.uuid5(uuid.NAMESPACE_URL, f"verba-{call.number}"))

    def settings(self) -> dict[str, Any]:
        login = {} if self.key_only else {"username": self.username, "password": self.password}
        return {"api_key": self.api_key, **login}

    # what tests use beyond that

    def expire_tokens(self) -> None:
        """End all sessions, as a restart of the server does."""
        self._tokens.clear()

    # the API

    async def _answer(self, request: web.Request) -> web.Response:
        form = await request.post() if request.method == "POST" else {}
        told = {**request.query, **{name: str(value) for name, value in form.items()}}
        action = told.get("action", "")
        try:
            return self._acted(request, action, told)
        except Failed as error:
            root, response = _document(action, code=error.code)
            SubElement(response, "ErrorMessage").text = error.message
            return _xml(root)

    def _acted(self, request: web.Request, action: str, told: dict[str, str]) -> web.Response:
        if told.get("apiKey") != self.api_key:
            raise Failed("-41", "Invalid API key.")
        if action == "RequestToken":
            return self._request_token(request, told)
        actions = {"SearchCalls": self._search, "GetCallInformation": self._information, "GetMedia": self._media}
        if action not in actions:
            raise Failed("-30", "Invalid action.")
        self._authenticate(request, told)
        return actions[action](told)

    def _request_token(self, request: web.Request, told: dict[str, str]) -> web.Response:
        pair = f"{self.username}:{self.password}".encode()
        by_header = request.headers.get("Authorization") == "Basic " + base64.b64encode(pair).decode()
        by_parameters = (told.get("userName"), told.get("password")) == (self.username, self.password)
        if not by_header and not by_parameters:
            raise Failed("-40", "Invalid credentials.")
        token, session = uuid.uuid4().hex.upper(), uuid.uuid4().hex
        self._tokens[token] = (self.now() + _TOKEN_LIVES, session)
        root, _ = _document("RequestToken", token=token)
        if self.session_in_answer:
            SubElement(root, "SessionId").text = session
            SubElement(root, "SessionParameterName").text = "jsessionid"
            SubElement(root, "SessionCookieName").text = "JSESSIONID"
        SubElement(root, "Remote").text = "false"
        answer = _xml(root)
        answer.set_cookie("JSESSIONID", session, path="/verba", httponly=True)
        return answer

    def _authenticate(self, request: web.Request, told: dict[str, str]) -> None:
        if self.key_only:
            return
        if "token" not in told:
            raise Failed("-42", "Login required.")
        until, session = self._tokens.get(told["token"], (self.now(), ""))
        if self.now() >= until:
            raise Failed("-43", "The token has expired.")
        if request.cookies.get("JSESSIONID") != session:
            raise Failed("-42", "Login required.")

    def _search(self, told: dict[str, str]) -> web.Response:
        start, end = (_moment(told.get(name)) for name in ("start", "end"))
        ongoing = {"recorded": False, "ongoing": True}.get(told.get("status", "recorded"))
        first, length = (told.get(name, usual) for name, usual in (("pagefirst", "0"), ("pagelen", "20")))
        known = ongoing is not None and told.get("orderby", "start_time") == "start_time"
        if not known or not first.isdecimal() or not length.isdecimal():
            raise Failed("-20", "Invalid parameters.")
        found = [c for c in self.calls if c.listed and (c.state == "recording") is ongoing]
        found = [c for c in found if start <= self._local(c.started_at) <= end]
        found.sort(key=lambda c: c.started_at, reverse=told.get("order") == "desc")
        at = 0 if self.stuck else int(first)
        rows = found[at : at + int(length)]
        root, response = _document("SearchCalls")
        listing = SubElement(response, "verbacdrlist", rowcount=str(len(rows)))
        for index, call in enumerate(rows):
            self._row(SubElement(listing, "verbacdr", index=str(index)), call)
        return _xml(root)

    def _row(self, row: Element, call: Call) -> None:
        start_tag = self.time_tag
        printed: dict[str, str | None] = {
            "ccdr_id": call.id,
            start_tag: self._printed(call.started_at),
            start_tag.replace("start", "end"): self._printed(call.ended_at),
            "duration": str(timedelta(seconds=int(call.seconds))).rjust(8, "0"),
            "source_caller_id": call.from_,
            "destination_caller_id": call.to,
            "userdirection": _NAMES[call.direction],
            "verba_user_name": call.agent,
            "audio_codec": "G.711 A-law",
            "modality": call.extra.get("modality", "voice"),
            "url": f"{self.url}/verba/call?id={call.number}",
        }
        if call.extra.get("bare"):
            printed = {name: printed[name] for name in ("ccdr_id", start_tag)}
        match call.extra.get("malformed"):
            case "no_start":
                printed[start_tag] = None
            case "wrong_type":
                printed[start_tag] = "in the afternoon"
        _fill(row, printed | call.extra.get("row", {}))

    def _information(self, told: dict[str, str]) -> web.Response:
        call = self._addressed(told, ("callID",))
        root, response = _document("GetCallInformation")
        row = SubElement(response, "verbacdr", state="0" if call.state == "recording" else "1")
        printed: dict[str, str | None] = {
            "ccdr_id": call.id,
            "native_id": f"native-{call.number}",
            "platform_call_id": f"platform-{call.number}",
            "location": "recorder-1",
            "source_caller_id": call.from_,
            "destination_caller_id": call.to,
            "start_time": self._printed(call.started_at),
            "end_time": self._printed(call.ended_at),
            "audio_codec_id": "2",
            "direction_id": _DIRECTIONS[call.direction],
            "cause_id": "0",
            "do_not_delete": "0",
            "secondary": "false",
        }
        if call.extra.get("bare"):
            printed = {"ccdr_id": call.id}
        _fill(row, printed | call.extra.get("detail", {}))
        if told.get("returnMetadata") == "1" and not call.extra.get("bare"):
            SubElement(SubElement(row, "metadata"), "field", name="case").text = f"case-{call.number}"
        return _xml(root)

    def _media(self, told: dict[str, str]) -> web.Response:
        call = self._addressed(told, self.id_names)
        if call.state != "complete":
            raise Failed("-70", "Media not found.")
        return self.serve_media(call, "audio/x-wav")

    def _addressed(self, told: dict[str, str], names: tuple[str, ...]) -> Call:
        """Return the call that a request is about; `id_names` holds for media, the details know one name."""
        identity = next((told[name] for name in names if name in told), None)
        if identity is None:
            raise Failed("-20", "Invalid parameters.")
        call = self.call(identity)
        if call is None:
            raise Failed("-50", "Call cannot be found.")
        return call

    def _local(self, moment: datetime) -> datetime:
        assert self.timezone is not None
        return moment.astimezone(ZoneInfo(self.timezone)).replace(tzinfo=None)

    def _printed(self, moment: datetime) -> str:
        return self._local(moment).isoformat(" ", "milliseconds")


def _moment(text: str | None) -> datetime:
    for form in _FORMATS:
        try:
            return datetime.strptime(text or "", form)  # noqa: DTZ007 - local time is what is compared
        except ValueError:
            continue
    raise Failed("-20", "Invalid parameters.")


def _document(action: str, code: str = "0", **more: str) -> tuple[Element, Element]:
    root = Element("VerbaApi")
    return root, SubElement(root, "Response", code=code, type=action, **more)


def _fill(row: Element, fields: dict[str, str | None]) -> None:
    for name, value in fields.items():
        if value is not None:
            SubElement(row, name).text = value


def _xml(root: Element) -> web.Response:
    return web.Response(body=tostring(root, "utf-8", xml_declaration=True), content_type="text/xml", charset="utf-8")
