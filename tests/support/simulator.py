"""The common part of the five simulated phone systems: a real HTTP server, a list of calls, scripted faults.

One module per vendor subclasses `Simulator` and adds routes. It runs on its own thread and event loop, so
that tests, the command line in a subprocess and Celery workers can all talk to it. What it saw is kept for
assertions: `requests`, `downloads`, `most_at_once`.

A request is open from when its head has arrived until its last byte was handed to the kernel, or its connection
ended. Whether that has ended is the kernel's word, asked in the moment in which another request arrives: a client
may close one connection and ask over another at once, and the news of both wait in their sockets side by side. So
what was closed before is not counted because this program has not come round to reading of it; what is open is
counted, however it stalls.
"""

import asyncio
import gzip
import socket
import threading
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, Self

from aiohttp import web

from tests.support.audio import wav

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_ESTABLISHED = 1  # the first byte of Linux's tcp_info; CLOSE_WAIT, for one, is 8


@dataclass
class Call:
    """One recorded call as the phone system knows it: the truth that an archive is audited against."""

    number: int
    started_at: datetime
    seconds: float = 12.0
    direction: str = "inbound"  # inbound, outbound, internal
    from_: str = "5550100"
    to: str = "1001"
    agent: str | None = None
    queue: str | None = None
    media: bytes = b""
    state: str = "complete"  # recording, saving, complete, error
    id: str = ""
    """The vendor's recording id; the simulator fills it in where it is empty."""
    hash: str | None = "right"
    """right, wrong, absent, base64, odd: for vendors that give one."""
    listed: bool = True
    """Whether listings show it (a late arrival is switched on later)."""
    extra: dict[str, Any] = field(default_factory=dict)
    """Two keys mean the same to all simulators: `bare` (optional fields are left out of the row) and `malformed`
    (`no_start` or `wrong_type`: the row cannot be read). Others are the vendor's own."""

    def __post_init__(self) -> None:
        if not self.media:
            self.media = wav(0.5, seed=self.number)

    @property
    def ended_at(self) -> datetime:
        return self.started_at + timedelta(seconds=self.seconds)


@dataclass
class Fault:
    """What goes wrong, where and how often. `kind` names it; see `Simulator._faulted` for each.

    purpose: login, list, detail, media or any. `recording`: only for this id. `times`: then it is over.
    """

    kind: str
    purpose: str = "media"
    recording: str | None = None
    times: int = 1_000_000
    status: int = 500
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    after: int = 100
    """Bytes sent before a cut, stall or drip."""
    skip: int = 0
    """How many matching requests pass unharmed first."""
    name: str = ""
    """What the fault is counted as; its kind where this is empty."""


@dataclass(frozen=True)
class Seen:
    """One request that reached the simulator."""

    method: str
    path: str
    purpose: str
    recording: str | None
    query: dict[str, str]
    headers: dict[str, str]


class Simulator:
    """A phone system on a free loopback port. Use as a context manager, or `start` and `stop`.

    A subclass defines `vendor`, `routes()`, `purpose_of(request)` -> (purpose, recording id or None), and
    `settings()`: the vendor's own keys for a configuration file, secrets in clear text.
    """

    vendor: ClassVar[str]
    timezone: ClassVar[str | None] = None
    """The zone the simulated system prints its times in, where they carry no offset."""
    host = "127.0.0.1"
    """The address to listen on; another one is set before the start."""

    def __init__(self, calls: list[Call] | None = None) -> None:
        self.calls: list[Call] = []
        self.faults: list[Fault] = []
        self.requests: list[Seen] = []
        self.downloads: Counter[str] = Counter()
        self.most_at_once = 0
        self.struck: list[tuple[str, str, str | None]] = []
        """Faults that took place: name, purpose and the recording that was asked for."""
        self.whim: Callable[[str, str | None], Fault | None] | None = None
        """Asked at each request that no scripted fault fits: purpose and recording in, a fault to script out."""
        self.stuck = False
        """Whether listings give their first page for ever, always saying that there is more."""
        self._open: dict[int, web.Request] = {}
        self._lock = threading.Lock()
        self._port = 0
        self._now: Callable[[], datetime] = lambda: datetime.now(UTC)
        for call in calls or []:
            self.add(call)

    # what a subclass gives

    def routes(self) -> list[web.RouteDef]:
        raise NotImplementedError

    def purpose_of(self, request: web.Request) -> tuple[str, str | None]:
        """Return what a request is for (login, list, detail, media) and of which recording."""
        raise NotImplementedError

    def new_id(self, call: Call) -> str:
        """Return the id this vendor gives to a call."""
        raise NotImplementedError

    def settings(self) -> dict[str, Any]:
        """Return the vendor's own configuration keys, secrets in clear text."""
        raise NotImplementedError

    # what tests use

    @property
    def url(self) -> str:
        """The origin to configure."""
        return f"http://{self.host}:{self._port}"

    def add(self, call: Call) -> Call:
        if not call.id:
            call.id = self.new_id(call)
        self.calls.append(call)
        return call

    def call(self, recording: str) -> Call | None:
        return next((c for c in self.calls if c.id == recording), None)

    def fault(self, kind: str, purpose: str = "media", **more: Any) -> Fault:
        """Script a fault and return it; `faults.clear()` ends all."""
        fault = Fault(kind, purpose, **more)
        self.faults.append(fault)
        return fault

    def finished(self) -> list[Call]:
        """Return what an archive must hold in the end."""
        return [c for c in self.calls if c.listed and c.state == "complete"]

    def count(self, purpose: str) -> int:
        return sum(1 for seen in self.requests if seen.purpose == purpose)

    @property
    def at_once(self) -> int:
        """How many requests are being answered now."""
        with self._lock:
            return self._count()

    def use_clock(self, now: Callable[[], datetime]) -> None:
        """Have tokens and one-time links expire by this clock."""
        self._now = now

    def now(self) -> datetime:
        return self._now()

    # the server

    def start(self) -> Self:
        ready = threading.Event()
        self._thread = threading.Thread(target=self._serve, args=(ready,), daemon=True)
        self._thread.start()
        ready.wait(10)
        return self

    def stop(self) -> None:
        if not self._loop.is_closed():  # stopping twice is no mistake
            self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(10)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def _serve(self, ready: threading.Event) -> None:
        asyncio.run(self._main(ready))

    async def _main(self, ready: threading.Event) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        app = web.Application(middlewares=[self._middleware], client_max_size=2**20)
        app.add_routes(self.routes())
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, self.host, self._port)
        await site.start()
        self._port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
        ready.set()
        await self._stopping.wait()
        await runner.cleanup()

    @web.middleware
    async def _middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        purpose, recording = self.purpose_of(request)
        with self._lock:
            self.requests.append(
                Seen(
                    request.method,
                    request.raw_path.split("?")[0],
                    purpose,
                    recording,
                    dict(request.query),
                    dict(request.headers),
                )
            )
            self._open[id(request)] = request
            self.most_at_once = max(self.most_at_once, self._count())
        try:
            fault = self._due(purpose, recording)
            answer = await (self._faulted(fault, request, handler) if fault else handler(request))
            # sent from here rather than by the server, so that a request counts until its last byte is out
            await answer.prepare(request)
            await answer.write_eof()
            return answer
        except ConnectionResetError:
            raise asyncio.CancelledError from None  # the client is gone
        finally:
            with self._lock:
                del self._open[id(request)]

    def _count(self) -> int:
        return sum(map(_is_open, self._open.values()))

    def _due(self, purpose: str, recording: str | None) -> Fault | None:
        found = self._scripted(purpose, recording)
        if found is None and self.whim is not None and (fresh := self.whim(purpose, recording)) is not None:
            self.faults = [*(fault for fault in self.faults if fault.times > 0), fresh]
            found = self._scripted(purpose, recording)
        return found

    def _scripted(self, purpose: str, recording: str | None) -> Fault | None:
        for fault in self.faults:
            fits = fault.purpose in (purpose, "any") and fault.recording in (None, recording)
            if fits and fault.times > 0:
                if fault.skip > 0:
                    fault.skip -= 1
                    continue
                fault.times -= 1
                self.struck.append((fault.name or fault.kind, purpose, recording))
                return fault
        return None

    async def _faulted(self, fault: Fault, request: web.Request, handler: Handler) -> web.StreamResponse:
        match fault.kind:
            case "status":  # any status, headers and body
                return web.Response(status=fault.status, headers=fault.headers, body=fault.body)
            case "answer":  # a wrong body with status 200: a login page, an error document
                return web.Response(body=fault.body, headers={"Content-Type": "text/html", **fault.headers})
            case "echo":  # a status and, as its body, everything that was asked, credentials included
                sent = await request.text()
                told = "\n".join((str(request.rel_url), *map(": ".join, request.headers.items()), sent))
                return web.Response(status=fault.status, text=told, headers=fault.headers)
            case "reset":  # the connection is cut before an answer
                return self._cut(request)
            case "linger":  # the right answer, a little late, so that requests made together are seen together
                await asyncio.sleep(0.1)
                return await handler(request)
            case "redirect":
                return web.Response(status=302, headers=fault.headers)
            case "truncate" | "cut_chunked" | "until_close" | "stall" | "drip" | "gzip" | "cut_gzip":
                return await self._mangled(fault, request, await self._whole(request, handler))
        raise AssertionError(f"no such fault: {fault.kind}")

    async def _whole(self, request: web.Request, handler: Handler) -> bytes:
        answer = await handler(request)
        assert isinstance(answer, web.Response)
        assert isinstance(answer.body, bytes)
        return answer.body

    async def _mangled(self, fault: Fault, request: web.Request, body: bytes) -> web.StreamResponse:
        transport = request.transport
        assert transport is not None
        head = "HTTP/1.1 200 OK\r\nContent-Type: audio/wav\r\nConnection: close\r\n"
        match fault.kind:
            case "truncate":  # fewer bytes than Content-Length says
                transport.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body[: fault.after])
            case "cut_chunked":  # chunked, without its last chunk
                piece = body[: fault.after]
                transport.write(
                    f"{head}Transfer-Encoding: chunked\r\n\r\n{len(piece):x}\r\n".encode() + piece + b"\r\n"
                )
            case "until_close":  # no length at all; `after` of 0 sends everything
                transport.write(f"{head}\r\n".encode() + (body[: fault.after] if fault.after else body))
            case "gzip" | "cut_gzip":  # compressed though nobody asked
                packed = gzip.compress(body)
                packed = packed if fault.kind == "gzip" else packed[:-6]
                transport.write(
                    f"{head}Content-Encoding: gzip\r\nContent-Length: {len(packed)}\r\n\r\n".encode() + packed
                )
            case "stall" | "drip":
                transport.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body[: fault.after])
                at = fault.after
                while not transport.is_closing() and not self._stopping.is_set() and at < len(body):
                    await asyncio.sleep(0.05)
                    if fault.kind == "drip":
                        transport.write(body[at : at + 1])
                        at += 1
        transport.close()
        raise asyncio.CancelledError  # nothing is left for the server to answer

    def _cut(self, request: web.Request) -> web.StreamResponse:
        transport = request.transport
        assert transport is not None
        transport.abort()
        raise asyncio.CancelledError

    def serve_media(self, call: Call, content_type: str = "audio/wav") -> web.Response:
        """Answer with the audio and count the download."""
        with self._lock:
            self.downloads[call.id] += 1
        return web.Response(body=call.media, content_type=content_type)


def _is_open(request: web.Request) -> bool:
    """Tell whether the client has not closed the connection yet, read or not."""
    transport = request.transport
    if transport is None or transport.is_closing():
        return False
    connection: socket.socket = transport.get_extra_info("socket")
    try:
        return connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == _ESTABLISHED
    except OSError:  # closed by another thread's loop just now
        return False
