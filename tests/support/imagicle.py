"""A simulated Imagicle Call Recording WebAPI: Basic credentials, newest first, one detail a recording, MP3.

Only what is complete or being synchronised between nodes (`saving`) is listed; the latter answers 404 on
detail and media, as a recording purged since (`error`) does on media. `after_page` is called with the number
of each page that was served, so that a test can make the rows shift. Beyond `Call`: `extra["row"]` and
`extra["detail"]` change printed fields; `hash` may also be `upper`.
"""

import base64
import hashlib
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

from aiohttp import web

from tests.support.audio import mp3, wav
from tests.support.simulator import Call, Simulator

_BASE = "/fw/Apps/Recorder/WebAPI/Recordings"
_DIRECTIONS = {"inbound": 1, "outbound": 2}


class Refused(Exception):
    """Ends a list request with the API's own error object; reason 0 is a filter, 1 is paging."""

    def __init__(self, reason: int, message: str) -> None:
        super().__init__(reason, message)
        self.reason = reason
        self.message = message


class SimulatedImagicle(Simulator):
    vendor: ClassVar[str] = "imagicle"
    username = "archive"
    password = "imagicle-sample-password"

    def __init__(self, calls: list[Call] | None = None) -> None:
        self.largest_page = 500
        """What `pageSize` is cut down to."""
        self.after_page: Callable[[int], None] | None = None
        self.hidden = 0
        """How many more recordings `totalCount` announces than are ever listed."""
        self.old_suite = False
        """Whether details lack size, hash and pbxInfo."""
        super().__init__(calls)

    # what a simulator is asked for

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get(_BASE, self._guarded(self._list)),
            web.get(f"{_BASE}/", self._guarded(self._list)),
            web.get(f"{_BASE}/{{id}}", self._guarded(self._detail)),
            web.get(f"{_BASE}/{{id}}/Media", self._guarded(self._media)),
        ]

    def purpose_of(self, request: web.Request) -> tuple[str, str | None]:
        identity = request.match_info.get("id")
        if identity is None:
            return "list", None
        return ("media" if request.path.endswith("/Media") else "detail"), identity

    def new_id(self, call: Call) -> str:
        return str(uuid.uuid5(uuid.NAMESPACE_URL, f"imagicle-{call.number}"))

    def settings(self) -> dict[str, Any]:
        return {"username": self.username, "password": self.password}

    def add(self, call: Call) -> Call:
        """Add a call; where the test gave no media of its own, it is MP3 as everything is here."""
        if call.media == wav(0.5, seed=call.number):
            call.media = mp3(40, seed=call.number)
        return super().add(call)

    # the list

    async def _list(self, request: web.Request) -> web.Response:
        try:
            found = sorted(self._matching(request), key=lambda c: c.started_at, reverse=True)
            page, size = _count(request, "page", 0), _count(request, "pageSize", len(found) or 1)
        except Refused as error:
            return web.json_response({"reason": error.reason, "message": error.message}, status=400)
        size = min(size, self.largest_page)
        at = 0 if self.stuck else page * size
        rows = [self._row(c) for c in found[at : at + size]]
        total = 1_000_000 if self.stuck else len(found) + self.hidden
        if self.after_page is not None:
            self.after_page(page)
        return web.json_response({"totalCount": total, "recordings": rows})

    def _matching(self, request: web.Request) -> list[Call]:
        found = [c for c in self.calls if c.listed and c.state != "recording"]
        for name, value in request.query.items():
            match name:
                case "page" | "pageSize":
                    pass
                case "startTime":
                    found = [c for c in found if _fits(c.started_at, value)]
                case "endTime":
                    found = [c for c in found if _fits(c.ended_at, value)]
                case "localPartyNumber" | "ownerUsername" | "direction":
                    found = [c for c in found if str(self._row(c).get(name)) == value]
                case _:
                    raise Refused(0, f"Unknown filter {name}")
        return found

    def _row(self, call: Call) -> Any:
        local, remote = (call.to, call.from_) if call.direction == "inbound" else (call.from_, call.to)
        row: dict[str, Any] = {
            "id": call.id,
            "referenceNumber": f"2026{call.number:09d}",
            "startTime": call.started_at.astimezone(UTC).isoformat().replace("+00:00", "Z"),
            "duration": f"PT{int(call.seconds) // 60}M{call.seconds % 60:g}S",
            "direction": _DIRECTIONS.get(call.direction, 0),
            "localPartyNumber": local,
            "remotePartyNumber": remote,
            "ownerUsername": call.agent,
        }
        if call.extra.get("bare"):
            row = {"id": call.id, "startTime": row["startTime"]}
        match call.extra.get("malformed"):
            case "no_start":
                del row["startTime"]
            case "wrong_type":
                row["startTime"] = {"ticks": 638447653390000000}
        return row | call.extra.get("row", {})

    # one recording

    def _known(self, request: web.Request) -> Call:
        """Return the call, or refuse: an id that is not of this system must at least be a GUID."""
        identity = request.match_info["id"]
        call = self.call(identity) or self.call(identity.lower())
        if call is None:
            try:
                uuid.UUID(identity)
            except ValueError:
                raise web.HTTPBadRequest(text="Id is not a valid GUID") from None
        if call is None or call.state in ("recording", "saving"):
            raise web.HTTPNotFound(text="Recording does not exist")
        return call

    async def _detail(self, request: web.Request) -> web.Response:
        call = self._known(request)
        told = self._row(call)
        owner = told.pop("ownerUsername", None)
        if not call.extra.get("bare"):
            told |= {
                "pbxCallId": str(17000 + call.number),
                "owner": {"username": owner, "firstName": "Ada", "lastName": "Example", "group": "Sales"},
                "preservingUser": None,
                "note": {"owner": {"username": owner}, "text": "sample"},
            }
            if not self.old_suite:
                told |= {"size": len(call.media), "hash": _hash(call)}
        return web.json_response(told | call.extra.get("detail", {}))

    async def _media(self, request: web.Request) -> web.Response:
        call = self._known(request)
        if call.state == "error":
            raise web.HTTPNotFound(text="Recording does not exist")
        return self.serve_media(call, "audio/mpeg")

    def _guarded(self, answer: Any) -> Any:
        async def handler(request: web.Request) -> web.Response:
            expected = "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()
            if request.headers.get("Authorization") != expected:
                return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="IAS"'})
            response: web.Response = await answer(request)
            return response

        return handler


def _hash(call: Call) -> dict[str, str] | None:
    digest = hashlib.sha256(call.media)
    match call.hash:
        case None | "absent":
            return None
        case "base64":
            return {"SHA256": base64.b64encode(digest.digest()).decode()}
        case "upper":
            return {"sha256": digest.hexdigest().upper()}
        case "wrong":
            return {"SHA256": hashlib.sha256(b"other bytes").hexdigest()}
        case "odd":
            return {"SHA256": f"sha256:{digest.hexdigest()[:32]}"}
    return {"SHA256": digest.hexdigest()}


def _fits(moment: datetime, value: str) -> bool:
    """Tell whether a time passes a filter: `before:`, `after:`, or nothing for equality, then an ISO time with zone."""
    operator, _, rest = value.partition(":")
    bare = operator not in ("before", "after")
    try:
        bound = datetime.fromisoformat(value if bare else rest)
    except ValueError:
        raise Refused(0, f"Filter value {value!r} is not valid") from None
    if bound.tzinfo is None:
        raise Refused(0, f"Filter value {value!r} has no zone")
    if bare:
        return abs(moment - bound) < timedelta(seconds=1)
    return moment < bound if operator == "before" else moment > bound


def _count(request: web.Request, name: str, usual: int) -> int:
    text = request.query.get(name, str(usual))
    if not text.isdecimal() or (name == "pageSize" and int(text) == 0):
        raise Refused(1, f"{name} is not valid")
    return int(text)
