"""A simulated XiVO CC recording server: token header, search by local time, audio by one of two paths.

Strict where the real one is known or likely to be: the token, POST with a JSON body, `page` from 1, times as
`YYYY-MM-DD HH:MM:SS`. Rows come newest first, so that pages shift when calls arrive.
"""

from datetime import datetime, timedelta
from typing import Any, ClassVar
from zoneinfo import ZoneInfo

from aiohttp import web

from tests.support.simulator import Call, Simulator

TOKEN = "u@pf#41[gY=+&%-simulated"


class SimulatedXivo(Simulator):
    """`prefix` is "" or "/recording"; `doubled` moves the audio to the path with `records` twice."""

    vendor: ClassVar[str] = "xivo"
    timezone: ClassVar[str | None] = "Europe/Paris"

    def __init__(self, calls: list[Call] | None = None, *, prefix: str = "", doubled: bool = False) -> None:
        self.prefix = prefix
        self.doubled = doubled
        super().__init__(calls)

    def settings(self) -> dict[str, Any]:
        return {"token": TOKEN, "path_prefix": self.prefix}

    def new_id(self, call: Call) -> str:
        """Return `<gateway>-<epoch>.<n>`, without the epoch where `extra` asks for a `plain_id` or a broken row."""
        if call.extra.get("plain_id") or call.extra.get("malformed"):
            return f"gw1-rec{call.number}"
        return f"gw1-{int(call.started_at.timestamp())}.{call.number}"

    def routes(self) -> list[web.RouteDef]:
        middle = "/records" if self.doubled else ""
        return [
            web.post(f"{self.prefix}/records/search", self._search),
            web.get(f"{self.prefix}/records{middle}/{{id}}/audio", self._audio),
        ]

    def purpose_of(self, request: web.Request) -> tuple[str, str | None]:
        if request.path.endswith("/search"):
            return "list", None
        return "media", request.match_info.get("id")

    async def _search(self, request: web.Request) -> web.Response:
        if refused := self._refused(request):
            return refused
        try:
            page, size = int(request.query["page"]), int(request.query["pageSize"])
            body = await request.json()
            after, before = self._moment(body["start"]), self._moment(body["end"])
        except (KeyError, ValueError, TypeError) as error:
            return web.json_response({"error": f"bad request: {error}"}, status=400)
        if page < 1 or size < 1:
            return web.json_response({"error": "page and pageSize count from 1"}, status=400)
        found = [c for c in self.finished() if self._local(c.ended_at) > after and self._local(c.started_at) < before]
        found.sort(key=lambda c: c.started_at, reverse=True)
        first = 0 if self.stuck else (page - 1) * size
        rows = [self.row(c) for c in found[first : first + size]]
        return web.json_response({"hasNext": self.stuck or len(found) > first + size, "records": rows})

    async def _audio(self, request: web.Request) -> web.Response:
        if refused := self._refused(request):
            return refused
        call = self.call(request.match_info["id"])
        if call is None or call.state != "complete":
            return web.json_response({"error": "not found"}, status=404)
        return self.serve_media(call)

    def _refused(self, request: web.Request) -> web.Response | None:
        if request.headers.get("X-Auth-Token") != TOKEN:
            return web.json_response({"error": "invalid token"}, status=401)
        return None

    def row(self, call: Call) -> dict[str, Any]:
        """Return a call as the search prints it; `extra["row"]` replaces fields."""
        row: dict[str, Any] = {"id": call.id, "start": f"{self._local(call.started_at):%Y-%m-%d %H:%M:%S}"}
        if not call.extra.get("bare"):
            row |= {
                "duration": str(timedelta(seconds=int(call.seconds))).rjust(8, "0"),
                "src_num": call.from_,
                "dst_num": call.to,
                "agent": f"{call.agent} (1564)" if call.agent else None,
                "queue": f"{call.queue} (3556)" if call.queue else None,
                "status": "answered",
                "attached_data": {"recording": call.id, **call.extra.get("attached", {})},
            }
        match call.extra.get("malformed"):
            case "no_start":
                del row["start"]
            case "wrong_type":
                row["start"] = ["2026", 3, 5]
        row |= call.extra.get("row", {})
        return row

    def _local(self, moment: datetime) -> datetime:
        assert self.timezone is not None
        return moment.astimezone(ZoneInfo(self.timezone)).replace(tzinfo=None)

    def _moment(self, text: str) -> datetime:
        return datetime.strptime(text, "%Y-%m-%d %H:%M:%S")  # noqa: DTZ007 - the API knows local time only
