"""A simulated Yeastar S-Series, API v1.1.0 or v2.0.0: strict where the real one is, 200 on every error.

Times are printed in the wall time of `timezone`, without offset. One-time links live 30 seconds and serve
once, tokens lapse after 30 idle minutes, five refused logins lock the address for ten minutes; all of it by
`now()`. Beyond `Call`: `extra["type"]` is the printed type, `extra["callid"]` the printed call id,
`extra["suffix"]` the end of the name (`.wav`), and `extra["rows"]` holds changed fields for each further row
of the same call.
"""

import csv
import hashlib
import io
import json
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, ClassVar
from zoneinfo import ZoneInfo

from aiohttp import web

from tests.support.simulator import Call, Simulator

COLUMNS = (
    *("callid", "timestart", "callfrom", "callto", "callduraction", "talkduraction", "srctrunkname", "dsttrunkname"),
    *("status", "type", "pincode", "recording", "didnumber", "sn"),
)

_LINK_LIVES = timedelta(seconds=30)
_TOKEN_LIVES = timedelta(minutes=30)
_LOCK = timedelta(minutes=10)
_FAILURES = 5


@dataclass(frozen=True)
class Link:
    """One random on issue: what it opens, for which token, until when."""

    what: dict[str, str]
    token: str
    until: datetime


class Failed(Exception):
    """Ends a request with an errno."""


class SimulatedYeastar(Simulator):
    vendor: ClassVar[str] = "yeastar"
    timezone: ClassVar[str | None] = "Europe/Rome"
    username = "api"
    password = "yeastar-sample-password"

    def __init__(
        self,
        calls: list[Call] | None = None,
        *,
        api_version: str = "v1.1.0",
        single_login: bool = False,
        epoch_ids: bool = True,
    ) -> None:
        self.api_version = api_version
        self.single_login = single_login
        """Whether a second login ends the first token."""
        self.epoch_ids = epoch_ids
        """Whether call ids carry the Unix epoch of the call's start, as Asterisk's do."""
        self.number_errors = False
        """Whether errno is a number; a string otherwise, as in the vendor's sample."""
        self.rows: list[dict[str, str]] = []
        """Further rows of the call records, as they are: unrecorded calls, odd ones."""
        self.raw_lines: list[str] = []
        """Lines put at the end of every call record file, as they are."""
        self.logins = 0
        self._tokens: dict[str, datetime] = {}
        self._links: dict[str, Link] = {}
        self._failures = 0
        self._locked_until: datetime | None = None
        super().__init__(calls)

    # what a simulator is asked for

    def routes(self) -> list[web.RouteDef]:
        base = f"/api/{self.api_version}"
        return [
            web.post(f"{base}/login", self._answering(self._login)),
            web.post(f"{base}/cdr/get_random", self._answering(self._cdr_random)),
            web.get(f"{base}/cdr/download", self._cdr),
            web.post(f"{base}/recording/get_random", self._answering(self._recording_random)),
            web.get(f"{base}/recording/download", self._recording),
            web.get(f"{base}/{{rest:.*}}", self._answering(self._only_post)),
            web.route("*", "/{rest:.*}", self._answering(self._unsupported)),
        ]

    def purpose_of(self, request: web.Request) -> tuple[str, str | None]:
        match request.path.removeprefix(f"/api/{self.api_version}/"):
            case "login":
                return "login", None
            case "cdr/get_random" | "cdr/download":
                return "list", None
            case "recording/download":
                return "media", request.query.get("recording")
        return "detail", None

    def new_id(self, call: Call) -> str:
        stamp = self._local(call.started_at).strftime("%Y%m%d%H%M%S")
        return (
            f"{stamp}-{self.call_id(call)}-{call.from_}-{call.to}-{self._type(call)}{call.extra.get('suffix', '.wav')}"
        )

    def settings(self) -> dict[str, Any]:
        return {"username": self.username, "password": self.password, "api_version": self.api_version}

    # what tests use beyond that

    def call_id(self, call: Call) -> str:
        """Return the call id as it is printed."""
        epoch = self.epoch_ids and "malformed" not in call.extra
        usual = f"{int(call.started_at.timestamp())}.{call.number}" if epoch else f"S{call.number:08d}"
        return str(call.extra.get("callid", usual))

    def row(self, call: Call, **changed: str) -> dict[str, str]:
        """Return a call's row of the call records."""
        usual = {
            "callid": self.call_id(call),
            "timestart": self._local(call.started_at).strftime("%Y-%m-%d %H:%M:%S"),
            "callfrom": call.from_,
            "callto": call.to,
            "callduraction": f"{call.seconds:.0f}",
            "talkduraction": f"{call.seconds:.0f}",
            "srctrunkname": "TRUNKA" if call.direction == "inbound" else "",
            "dsttrunkname": "TRUNKA" if call.direction == "outbound" else "",
            "status": "ANSWERED",
            "type": self._type(call),
            "recording": call.id,
            "sn": "369300000000",
        }
        if call.extra.get("bare"):
            usual = {name: usual[name] for name in ("callid", "timestart", "recording")}
        if "malformed" in call.extra:
            usual["timestart"] = "" if call.extra["malformed"] == "no_start" else "a quarter past nine"
        return dict.fromkeys(COLUMNS, "") | usual | changed

    def end_sessions(self) -> None:
        """Forget every token, as a restart does."""
        self._tokens.clear()

    def lock(self) -> None:
        """Refuse every login for ten minutes, as after five failures."""
        self._locked_until = self.now() + _LOCK

    # logging in

    async def _login(self, request: web.Request) -> dict[str, Any]:
        body = await self._body(request)
        self.logins += 1
        if self._locked_until and self.now() < self._locked_until:
            raise Failed(20002)
        required = ("username", "password", "port") if self.api_version == "v1.1.0" else ("username", "password")
        if not all(body.get(name) for name in required):
            raise Failed(10004)
        if body.get("port") and not 0 <= int(body["port"]) <= 65536:
            raise Failed(20008)
        expected = hashlib.md5(self.password.encode(), usedforsecurity=False).hexdigest()
        if (body["username"], body["password"]) != (self.username, expected):
            self._failures += 1
            if self._failures >= _FAILURES:
                self._failures, self._locked_until = 0, self.now() + _LOCK
            raise Failed(20003)
        self._failures = 0
        if self.single_login:
            self._tokens.clear()
        token = secrets.token_hex(16)
        self._tokens[token] = self.now()
        return {"token": token} | ({"transport": "TCP"} if self.api_version == "v2.0.0" else {})

    def _token(self, request: web.Request) -> str:
        token = request.query.get("token", "")
        if not token:
            raise Failed(20005)
        if token not in self._tokens:
            raise Failed(20004)
        if self.now() - self._tokens[token] > _TOKEN_LIVES:
            del self._tokens[token]
            raise Failed(20006)
        self._tokens[token] = self.now()
        return token

    # one-time links

    def _issue(self, token: str, what: dict[str, str]) -> dict[str, Any]:
        name = secrets.token_hex(16)
        self._links[name] = Link(what, token, self.now() + _LINK_LIVES)
        return {**what, "random": name}

    def _use(self, request: web.Request, errno: int) -> dict[str, str]:
        token = self._token(request)
        link = self._links.pop(request.query.get("random", ""), None)
        asked = {k: v for k, v in request.query.items() if k not in ("token", "random")}
        if link is None or link.token != token or link.until < self.now() or link.what != asked:
            raise Failed(errno)
        return link.what

    # call records

    async def _cdr_random(self, request: web.Request) -> dict[str, Any]:
        token = self._token(request)
        body = await self._body(request)
        extension = "extid" if self.api_version == "v1.1.0" else "number"
        what = {name: str(body.get(name, "")) for name in (extension, "starttime", "endtime")}
        if not all(what.values()):
            raise Failed(10004)
        for name in ("starttime", "endtime"):
            try:
                datetime.strptime(what[name], "%Y-%m-%d %H:%M:%S")  # noqa: DTZ007 - wall time is what is printed
            except ValueError:
                raise Failed(20019) from None
        return self._issue(token, what)

    async def _cdr(self, request: web.Request) -> web.Response:
        try:
            asked = self._use(request, 20020)
        except Failed as failed:
            return self._failure(failed)
        rows = [row for printed, row in self._all_rows() if asked["starttime"] <= printed <= asked["endtime"]]
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
        body = text.getvalue() + "".join(f"{line}\r\n" for line in self.raw_lines)
        return self._closing(web.Response(body=body.encode(), content_type="text/csv"))

    def _all_rows(self) -> list[tuple[str, dict[str, str]]]:
        """Return all rows with the local time they are filtered by."""
        rows = [(row["timestart"], row) for row in self.rows]
        for call in self.calls:
            if call.listed and call.state != "recording":  # the record is written at the end of the call
                printed = self._local(call.started_at).strftime("%Y-%m-%d %H:%M:%S")
                rows.append((printed, self.row(call)))
                rows += [(printed, self.row(call, **changed)) for changed in call.extra.get("rows", [])]
        return rows

    # recordings

    async def _recording_random(self, request: web.Request) -> dict[str, Any]:
        token = self._token(request)
        name = str((await self._body(request)).get("recording", ""))
        if not name:
            raise Failed(10004)
        self._file(name)
        return self._issue(token, {"recording": name})

    async def _recording(self, request: web.Request) -> web.Response:
        try:
            call = self._file(self._use(request, 20012)["recording"])
        except Failed as failed:
            return self._failure(failed)
        return self._closing(self.serve_media(call))

    def _file(self, name: str) -> Call:
        call = self.call(name)
        if call is None or call.state != "complete":
            raise Failed(20014)
        return call

    # answers

    async def _only_post(self, request: web.Request) -> dict[str, Any]:
        raise Failed(20001)

    async def _unsupported(self, request: web.Request) -> dict[str, Any]:
        raise Failed(10003)

    def _answering(self, answer: Any) -> Any:
        async def handler(request: web.Request) -> web.Response:
            try:
                told = await answer(request)
            except Failed as failed:
                return self._failure(failed)
            return self._closing(web.json_response({"status": "Success", **told}))

        return handler

    def _failure(self, failed: Failed) -> web.Response:
        errno = failed.args[0] if self.number_errors else str(failed.args[0])
        return self._closing(web.json_response({"status": "Failed", "errno": errno}))

    def _closing(self, response: web.Response) -> web.Response:
        """Its server closes the connection after every answer."""
        response.force_close()
        return response

    async def _body(self, request: web.Request) -> dict[str, Any]:
        try:
            body = json.loads(await request.read())
        except ValueError:
            raise Failed(20000) from None
        if not isinstance(body, dict) or not body:
            raise Failed(20007)
        return body

    def _local(self, moment: datetime) -> datetime:
        return moment.astimezone(ZoneInfo(self.timezone or "UTC"))

    def _type(self, call: Call) -> str:
        return str(call.extra.get("type", call.direction.capitalize()))
