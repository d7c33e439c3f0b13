"""How requests reach the store: one kept-alive session, signed, timed, and tried again where trouble passes.

What an answer means is `storage.s3.refusals`; what is asked for is `storage.s3.store` and its neighbours.
"""

import asyncio
import random
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field
from hashlib import sha256

from config import VERSION
from config.clock import Clock
from storage.errors import StoreRefused, StoreUnavailable
from storage.s3.address import Address
from storage.s3.answers import Answer, error_in
from storage.s3.refusals import Operation, explain
from storage.s3.signing import Signer
from storage.s3.wire import EndedEarly, NotHttp, Unreachable, Wire
from storage.store import Body

EMPTY_SHA256 = sha256(b"").hexdigest()

_MAX_ANSWER = 16 * 1024 * 1024  # a listing of 1,000 keys of 1,024 bytes, each byte written %XX, is 4 MB
_MAX_ERROR = 64 * 1024
_AT_ONCE = 32
_BACKOFF = 0.5  # seconds before the second try, doubled for each further one
_LONGEST_WAIT = 30.0  # whatever Retry-After says: the caller has its own ways to wait longer

_ALWAYS = {"Accept-Encoding": "identity", "User-Agent": f"callvault/{VERSION}"}  # not signed: proxies may change them

_PASSES = frozenset({429, 500, 502, 503, 504})
_PASSING_CODES = frozenset(
    {"SlowDown", "InternalError", "ServiceUnavailable", "RequestTimeout", "ConditionalRequestConflict"}
    | {"OperationAborted", "Throttling", "ThrottlingException", "TooManyRequests"}
)

Sink = Callable[[AsyncIterator[bytes]], Awaitable[bytes]]
"""Reads the body of a good answer and returns what is to be its `body`; called anew for each try."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long one request may take and how often it is tried; times in seconds, of the machine's own clock."""

    connect: float = 10.0
    silence: float = 60.0
    """Without a byte of the answer, after the last byte of the request."""
    slowest: int = 64 * 1024
    """Bytes a second below which sending is given up."""
    tries: int = 4


@dataclass(frozen=True, slots=True)
class Request:
    """One request, the same for each try. `sha256` is the body's, in hex."""

    method: str
    operation: Operation
    key: str = ""
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Body = b""
    sha256: str = EMPTY_SHA256


class Transport:
    """Sends requests to one bucket. Safe to use from many coroutines of one event loop."""

    def __init__(self, address: Address, signer: Signer, clock: Clock, patience: Patience) -> None:
        self.address = address
        self._signer = signer
        self._clock = clock
        self._patience = patience
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._wire = Wire(address.base, patience.connect, patience.silence)
        self._target_at = address.base.index("/", len("https://")) if "/" in address.base[8:] else len(address.base)

    async def call(
        self,
        request: Request,
        *,
        expected: Collection[int] = (),
        sink: Sink | None = None,
        again: Callable[[], Awaitable[None]] | None = None,
    ) -> Answer:
        """Send and return the answer when it is good or its status expected; raise what it means otherwise.

        `again` is awaited before each further try: for what must not simply be done twice, since the answer that was
        lost may have been a good one.
        """
        answer = await self.send(request, sink=sink, again=again)
        if answer.ok or answer.status in expected:
            return answer
        raise explain(answer, request.operation, request.key, self.address)

    async def send(
        self, request: Request, *, sink: Sink | None = None, again: Callable[[], Awaitable[None]] | None = None
    ) -> Answer:
        """Send until there is an answer that would be the same next time, and return it.

        StoreUnavailable when all tries met trouble that passes, StoreRefused for a certificate nobody vouches for.
        """
        tries = 0
        while True:
            tries += 1
            wait = _BACKOFF * 2 ** (tries - 1) * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, guards nothing
            cause: OSError | None = None
            try:
                answer = await self._once(request, sink)
            except ssl.SSLError as exc:
                raise StoreRefused(
                    f"{self._told(request)}: the certificate of {self.address.host} is not trusted or TLS failed"
                    f" ({type(exc).__name__}): correct archive.endpoint_url or the machine's CA certificates",
                    request.key,
                ) from exc
            except OSError as exc:  # time-outs are of this kind too
                cause, trouble = exc, _words(exc)
            else:
                if not _passes(answer, request):
                    return answer
                trouble = f"answered {answer.status} {answer.code}".rstrip()
                told = answer.headers.get("Retry-After", "")
                if told.isascii() and told.isdigit():
                    wait = min(float(told), _LONGEST_WAIT)
            if tries >= self._patience.tries:
                raise StoreUnavailable(
                    f"{self._told(request)}: {trouble}, after {tries} tries; try again later", request.key
                ) from cause
            await self._clock.sleep(wait)
            if again:
                await again()

    async def aclose(self) -> None:
        """Close connections."""
        await self._wire.aclose()

    def _told(self, request: Request) -> str:
        of = f" of {request.key}" if request.key else ""
        return f"bucket {self.address.bucket} at {self.address.host}: {request.operation}{of}"

    async def _once(self, request: Request, sink: Sink | None) -> Answer:
        url = self.address.url(request.key, request.query)
        async with self._slots:
            sent_at = self._clock.now()
            headers = await self._signer.sign(
                request.method, url, {"Host": self.address.host, **request.headers}, request.sha256
            )
            async with asyncio.timeout(
                self._patience.connect + self._patience.silence + len(request.body) / self._patience.slowest
            ):
                exchange = await self._wire.ask(
                    request.method, url[self._target_at :], {**_ALWAYS, **headers}, request.body
                )
            with exchange:
                good = exchange.status < 300
                if good and sink:
                    return Answer(exchange.status, exchange.headers, sent_at, await sink(exchange.chunks()))
                body = await _read(exchange.chunks(), _MAX_ANSWER if good else _MAX_ERROR)
        error = error_in(body) if body and (not good or request.method == "POST") else {}
        hidden = {name: self._signer.hide(text) for name, text in error.items()}
        return Answer(exchange.status, exchange.headers, sent_at, body, hidden)


async def _read(content: AsyncIterator[bytes], limit: int) -> bytes:
    """Read up to `limit` bytes; what is beyond makes XML unreadable and is not worth the memory."""
    chunks, size = [], 0
    async for chunk in content:
        chunks.append(chunk)
        size += len(chunk)
        if size >= limit:
            break
    return b"".join(chunks)[:limit]


def _passes(answer: Answer, request: Request) -> bool:
    """Whether the same request may fare better in a moment."""
    if answer.ok:
        return False
    if answer.status == 409 and request.operation is Operation.COMPLETE:
        return False  # the upload id is spent
    return answer.status in _PASSES or answer.code in _PASSING_CODES or (answer.status == 409 and not answer.error)


def _words(exc: OSError) -> str:
    """Say what happened on the wire."""
    match exc:
        case TimeoutError():
            return "there was no answer in time"
        case Unreachable():
            return f"no connection could be made ({exc})"
        case EndedEarly():
            return "the answer ended early"
        case NotHttp():
            return f"the exchange failed ({type(exc).__name__}: {exc})"
        case _:
            return "the connection was cut"
