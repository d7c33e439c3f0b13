"""A simulated Bandwidth Catapult v1: recordings in no order, found by page and Link header, Basic credentials.

`link_style` chooses how Link headers look, `interval` switches the limit of one request per so many seconds
on. `insert_after_page` is put in front of the list once a page has been served, so that the rest shifts.
Beyond `Call`: `extra["media"]`, `extra["call"]` replace a recording's links, None leaves them out;
`extra["call_missing"]` has the call resource answer 404.
"""

import base64
import hashlib
import json
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar
from urllib.parse import quote

from aiohttp import web

from tests.support.simulator import Call, Simulator

_DIRECTIONS = {"inbound": "in", "outbound": "out"}


class SimulatedCatapult(Simulator):
    vendor: ClassVar[str] = "catapult"
    user_id = "u-sample"
    token = "t-catapult-sample"
    secret = "catapult-sample-secret"

    def __init__(self, calls: list[Call] | None = None) -> None:
        self.link_style = "absolute"
        """absolute, relative, terse (no spaces, single quotes), foreign, none."""
        self.largest_page = 1000
        """What `size` is cut down to; the documented maximum is 1000."""
        self.interval = 0.0
        """Seconds between two requests; 0 for no limit."""
        self.insert_after_page: Call | None = None
        self.refused = 0
        """How many requests came too soon."""
        self._next_at: datetime | None = None
        self._front: list[Call] = []
        super().__init__(calls)

    # what a simulator is asked for

    def routes(self) -> list[web.RouteDef]:
        user = "/v1/users/{user}"
        return [
            web.get(f"{user}/recordings", self._guarded(self._list)),
            web.get(f"{user}/recordings/{{id}}", self._guarded(self._one)),
            web.get(f"{user}/calls/{{id}}", self._guarded(self._call)),
            web.get(f"{user}/media/{{name}}", self._guarded(self._media)),
        ]

    def purpose_of(self, request: web.Request) -> tuple[str, str | None]:
        parts = request.path.strip("/").split("/")
        match parts[3:]:
            case ["recordings"]:
                return "list", None
            case ["calls", call_id]:
                return "detail", next((c.id for c in self.calls if self.call_id(c) == call_id), None)
            case ["media", name]:
                return "media", next((c.id for c in self.calls if self.media_name(c) == name), None)
        return "detail", parts[-1]

    def new_id(self, call: Call) -> str:
        return f"rec-{_name(call)}"

    def settings(self) -> dict[str, Any]:
        return {"user_id": self.user_id, "token": self.token, "secret": self.secret}

    # what tests use beyond that

    def call_id(self, call: Call) -> str:
        return f"c-{_name(call)}"

    def media_name(self, call: Call) -> str:
        return str(call.extra.get("media_name", f"{self.call_id(call)}-1.wav"))

    def recording(self, call: Call) -> dict[str, Any]:
        """Return the recording resource of a call; an active one has neither end nor media."""
        base = f"{self.url}/v1/users/{self.user_id}"
        links = {"call": f"{base}/calls/{self.call_id(call)}", "media": f"{base}/media/{quote(self.media_name(call))}"}
        told: dict[str, Any] = {"id": call.id, "startTime": _time(call, call.started_at), "state": call.state}
        if call.state != "recording":
            told["endTime"] = _time(call, call.ended_at)
        if "malformed" in call.extra:
            told["startTime"] = {"at": "once"}
            if call.extra["malformed"] == "no_start":
                del told["startTime"]
        if call.extra.get("bare"):
            del links["call"], told["endTime"]
        for name, link in links.items():
            link = call.extra.get(name, link)  # noqa: PLW2901 - the exception beside the rule
            if link is not None and (name == "call" or call.state == "complete" or "media" in call.extra):
                told[name] = link
        return told

    def order(self) -> list[Call]:
        """Return the listed recordings in this account's order: shuffled, the same each time."""
        behind = sorted((c for c in self.calls if c not in self._front), key=lambda c: _name(c, "order"))
        return [c for c in [*self._front, *behind] if c.listed]

    # resources

    async def _list(self, request: web.Request) -> web.Response:
        page = asked_page = int(request.query.get("page", "0"))
        asked = int(request.query.get("size", "25"))
        if page < 0 or not 1 <= asked <= 1000:
            return _error(400, "bad-request", "invalid-parameter")
        size = min(asked, self.largest_page)
        if self.stuck:
            page = 0
        everything = self.order()
        rows = everything[page * size : (page + 1) * size]
        headers = self._links(asked_page, size, more=self.stuck or (page + 1) * size < len(everything))
        if self.insert_after_page is not None:
            self._front.append(self.add(self.insert_after_page))
            self.insert_after_page = None
        return web.json_response([self.recording(c) for c in rows], headers=headers)

    def _links(self, page: int, size: int, *, more: bool) -> dict[str, str]:
        path = f"/v1/users/{self.user_id}/recordings"
        pages = {"first": 0} | ({"previous": page - 1} if page else {}) | ({"next": page + 1} if more else {})
        match self.link_style:
            case "none":
                return {}
            case "relative":
                form = '<recordings?page={n}&size={size}>; rel="{rel}"'
            case "terse":
                form = "<{path}?page={n}&size={size}>;rel='{rel}'"
            case "foreign":
                form = '<https://elsewhere.example.net{path}?page={n}&size={size}>; rel="{rel}"'
            case _:
                form = '<{url}{path}?page={n}&size={size}>; rel="{rel}"'
        links = [form.format(url=self.url, path=path, n=n, size=size, rel=rel) for rel, n in pages.items()]
        return {"Link": ("," if self.link_style == "terse" else ", ").join(links)}

    async def _one(self, request: web.Request) -> web.Response:
        call = self.call(request.match_info["id"])
        if call is None:
            return _error(404, "not-found", "recording-not-found")
        return web.json_response(self.recording(call))

    async def _call(self, request: web.Request) -> web.Response:
        wanted = request.match_info["id"]
        call = next((c for c in self.calls if self.call_id(c) == wanted), None)
        if call is None or call.extra.get("call_missing"):
            return _error(404, "not-found", "call-not-found")
        return web.json_response(
            {
                "id": wanted,
                "from": call.from_,
                "to": call.to,
                "direction": _DIRECTIONS.get(call.direction, "in"),
                "state": "completed",
                "startTime": _time(call, call.started_at - timedelta(seconds=3)),
                "activeTime": _time(call, call.started_at),
                "endTime": _time(call, call.ended_at),
                "chargeableDuration": 60,
                "recordingEnabled": True,
                "recordingFileFormat": "wav",
            }
        )

    async def _media(self, request: web.Request) -> web.Response:
        wanted = request.match_info["name"]
        call = next((c for c in self.calls if self.media_name(c) == wanted and c.state == "complete"), None)
        if call is None:
            return _error(404, "not-found", "media-not-found")
        return self.serve_media(call)

    # credentials and the limit

    def _guarded(self, answer: Any) -> Any:
        async def handler(request: web.Request) -> web.Response:
            expected = "Basic " + base64.b64encode(f"{self.token}:{self.secret}".encode()).decode()
            if request.headers.get("Authorization") != expected:
                return _error(401, "authentication", "user-access-denied")
            if request.match_info["user"] != self.user_id:
                return _error(404, "not-found", "user-not-found")
            now = self.now()
            if self.interval and self._next_at is not None and now < self._next_at:
                return self._too_many(request, self._next_at)
            self._next_at = now + timedelta(seconds=self.interval)
            response: web.Response = await answer(request)
            return response

        return handler

    def _too_many(self, request: web.Request, until: datetime) -> web.Response:
        self.refused += 1
        reset = str(round(until.timestamp() * 1000))
        path = request.path.removeprefix("/v1/")
        told = {"rateLimitResetTime": reset, "requestMethod": request.method, "requestPath": path}
        body = {
            "category": "too-many-requests",
            "code": "rate-limit-reached",
            "details": [{"name": name, "value": value} for name, value in told.items()],
        }
        return web.json_response(body, status=429, headers={"X-RateLimit-Reset": reset})


def _name(call: Call, salt: str = "") -> str:
    """Return 24 letters and digits that belong to a call, in the vendor's shape."""
    digest = hashlib.sha256(f"{salt}{call.number}".encode()).digest()
    return base64.b32encode(digest).decode().lower()[:24]


def _time(call: Call, moment: datetime) -> str:
    """Print a time, for every other recording without milliseconds where there are none."""
    moment = moment.astimezone(UTC)
    precision = "seconds" if call.number % 2 and not moment.microsecond else "milliseconds"
    return moment.isoformat(timespec=precision).replace("+00:00", "Z")


def _error(status: int, category: str, code: str) -> web.Response:
    body = {"category": category, "code": code, "message": f"The request was refused: {code}", "details": []}
    return web.Response(status=status, text=json.dumps(body), content_type="application/json")
