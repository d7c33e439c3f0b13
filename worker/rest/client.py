"""One source's HTTP: where requests go, what they may carry, how long they may take, what answers mean.

Connectors name a path and parameters; everything else is decided here, the same for all vendors. A
credential leaves for the source's own origin only: redirects and links elsewhere are refused before
anything is sent. No message from here contains a query string, a header or a body beyond a short excerpt.
Bodies of recordings are `worker.rest.media`; caps, pace and pauses are `worker.limits`.
"""

import random
import ssl
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

import aiohttp
from yarl import URL

from config import callvault_version
from config.clock import Clock
from config.settings import Source
from storage.sidecar import GapReason
from worker.errors import (
    BadAnswer,
    GiveUp,
    MediaNotFound,
    NotYet,
    Retry,
    SessionExpired,
    SourceError,
    StopSource,
    Truncated,
    WaitUntil,
)
from worker.limits import PATIENCE, Gate, Slot
from worker.rest.media import BodyStream, decoded
from worker.rest.waiting import retry_after

MAX_METADATA = 16 * 1024 * 1024
"""No listing or detail is read beyond this many bytes; a page of 1,000 rows is about 1 MB."""

_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=30)
_TRIES = 3
_BACKOFF = 0.5  # seconds before the second try of a metadata call, doubled for the third
_MAX_HOPS = 3
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_DEFAULT_WAIT = 1.0  # a 429 that does not say for how long

Params = Mapping[str, str | int]
T = TypeVar("T")


class Purpose(StrEnum):
    """What a request is for: the same status means different things on the way to a login and to a recording."""

    LOGIN = "login"
    LIST = "listing"
    DETAIL = "detail"
    MEDIA = "media"


@dataclass(frozen=True, slots=True)
class Reply:
    """A complete, size-capped answer with a status below 300."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    url: str
    """Where it came from, for resolving relative links; may hold credentials, so never for messages."""


def segment(text: str) -> str:
    """Encode a vendor's id as one path segment: nothing in it can climb, split or end the path."""
    encoded = quote(text, safe="")
    return encoded if encoded.strip(".") else encoded.replace(".", "%2E")


def tls_context(source: Source) -> ssl.SSLContext | aiohttp.Fingerprint:
    """Return how the source's certificate is checked: the usual CAs, its `ca_file`, or its pinned fingerprint."""
    if source.tls_fingerprint:
        return aiohttp.Fingerprint(bytes.fromhex(source.tls_fingerprint))
    return ssl.create_default_context(cafile=str(source.ca_file) if source.ca_file else None)


def open_session(source: Source, *, cookies: bool) -> aiohttp.ClientSession:
    """Return the source's own HTTP session; never shared, so that no cookie or connection of another's is used."""
    jar = aiohttp.CookieJar(unsafe=True) if cookies else aiohttp.DummyCookieJar()
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, ssl=tls_context(source)),
        cookie_jar=jar,
        timeout=_TIMEOUT,
        auto_decompress=False,
        trust_env=False,
        headers={"Accept-Encoding": "identity", "User-Agent": f"callvault/{callvault_version()}"},
    )


class RestClient:
    """Requests to one source. Used by many coroutines of one event loop."""

    def __init__(self, source: Source, gate: Gate, clock: Clock, *, cookies: bool = False) -> None:
        self.source = source
        self.clock = clock
        self._gate = gate
        self._base = URL(source.url.rstrip("/"))
        self._cookies = cookies
        self._session: aiohttp.ClientSession | None = None
        self._secrets: set[str] = {s for s in source.secrets() if s}

    async def slot(self) -> Slot:
        """Wait for a slot to hold over several requests, such as a one-time link and its use."""
        return await self._gate.enter()

    def hide(self, secret: str) -> None:
        """Have a session token taken out of every message from now on."""
        if secret:
            self._secrets.add(secret)

    def clean(self, text: str) -> str:
        """Return text of the vendor's fit for a message: no secrets, one line, at most 300 characters."""
        for secret in sorted(self._secrets, key=len, reverse=True):
            text = text.replace(secret, "***")
        return " ".join("".join(c if c.isprintable() else " " for c in text[:2000]).split())[:300]

    def own(self, link: str, relative_to: str = "") -> str:
        """Resolve a link of the vendor's and return it as path and query below the base.

        Raises GiveUp `foreign_origin` where it leads to another origin, or carries credentials of its own.
        """
        try:
            url = URL(relative_to or str(self._base), encoded=True).join(URL(link))
            same = url.origin() == self._base.origin() and url.user is None
        except ValueError:
            same = False
        if not same:
            raise GiveUp(
                f"a link of {self.source.name} leads away from {self._base.origin()}: {self.clean(link.split('?', maxsplit=1)[0])}"
                " (not followed; if the phone system is known by that name, write it in `url`)",
                GapReason.FOREIGN_ORIGIN,
            )
        return url.raw_path_qs

    async def call(
        self,
        method: str,
        path: str,
        *,
        purpose: Purpose,
        params: Params | None = None,
        headers: Mapping[str, str] | None = None,
        json: Any = None,
        form: Params | None = None,
        slot: Slot | None = None,
        absolute: bool = False,
        max_bytes: int = MAX_METADATA,
        tries: int = _TRIES,
    ) -> Reply:
        """Make a metadata request and read its whole answer, trying again what passes by itself.

        `path` is below the source's `url`, already encoded (`segment`); `absolute` says that it is below
        the origin, as `own` returns it. Within `slot`, if given. Raises the errors of `worker.errors`.
        """
        for attempt in range(tries):
            if attempt:
                await self.clock.sleep(_BACKOFF * 2**attempt * random.uniform(0.5, 1))  # noqa: S311 - jitter
            try:
                stream = await self.open(
                    method,
                    path,
                    purpose=purpose,
                    params=params,
                    headers=headers,
                    json=json,
                    form=form,
                    slot=slot,
                    absolute=absolute,
                )
                try:
                    body = await stream.read(max_bytes)
                finally:
                    await stream.aclose()
            except Retry:
                if attempt == tries - 1:
                    raise
            else:
                return Reply(stream.status, stream.headers, body, stream.url)
        raise AssertionError("unreachable: the last try returns or raises")

    async def open(
        self,
        method: str,
        path: str,
        *,
        purpose: Purpose,
        params: Params | None = None,
        headers: Mapping[str, str] | None = None,
        json: Any = None,
        form: Params | None = None,
        slot: Slot | None = None,
        absolute: bool = False,
    ) -> BodyStream:
        """Make one request and return its body unread, for status 2xx; the caller closes it.

        A slot given here is the caller's to release; otherwise the stream holds one until it is closed.
        """
        base = self._base.origin() if absolute else self._base
        target = URL(f"{str(base).rstrip('/')}{path}{_query(path, params)}", encoded=True)
        what = f"{self.source.name}: {method} {target.path}"
        held = slot or await self._gate.enter()
        try:
            response = await self._follow(method, target, what, purpose, headers, json, form)
        except BaseException:
            if slot is None:
                await held.release()
            raise
        return BodyStream(
            decoded(response, what), response, what, None if slot else held, self.clock, self._gate.progress
        )

    async def _follow(
        self,
        method: str,
        target: URL,
        what: str,
        purpose: Purpose,
        headers: Mapping[str, str] | None,
        json: Any,
        form: Params | None,
    ) -> aiohttp.ClientResponse:
        """Send, follow redirects within the origin, and turn every status of 300 and more into an error."""
        session = self._opened()
        for _ in range(_MAX_HOPS + 1):
            await self._gate.keep_pace()
            try:
                response = await session.request(
                    method, target, headers=headers, json=json, data=form and _form(form), allow_redirects=False
                )
            except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
                raise translate(error, what) from error
            self._gate.progress()
            if response.status < 300:
                return response
            try:
                if response.status not in _REDIRECTS:
                    raise await self._refusal(response, what, purpose)
                link = response.headers.get("Location", "")
            finally:
                response.close()
            target = URL(f"{self._base.origin()}{self.own(link, str(target))}", encoded=True)
            if response.status == 303:
                method, json, form = "GET", None, None
        raise BadAnswer(f"{what}: redirected more than {_MAX_HOPS} times")

    async def _refusal(self, response: aiohttp.ClientResponse, what: str, purpose: Purpose) -> SourceError:
        body = b""
        with suppress(aiohttp.ClientError, TimeoutError, OSError):  # an excerpt for the message, if it comes
            body = await response.content.read(4096)
        said = self.clean(body.decode("utf-8", "replace"))
        error = classify(response.status, purpose, f"{what}: status {response.status}" + (f", {said}" if said else ""))
        wait = retry_after(response.headers, self.clock.now())
        if isinstance(error, WaitUntil) or (response.status == 503 and wait is not None):
            seconds = _DEFAULT_WAIT if wait is None else wait
            await self._gate.pause(seconds, f"{self.source.name} asked to wait {seconds:.0f} s ({response.status})")
            if seconds <= PATIENCE:  # short waits are sat out at the gate by whoever comes next
                return Retry(f"{error.message}; asked to wait {seconds:.0f} s")
            return WaitUntil(f"{error.message}; asked to wait {seconds:.0f} s", seconds)
        return error

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = open_session(self.source, cookies=self._cookies)
        return self._session

    async def aclose(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()


def classify(status: int, purpose: Purpose, what: str) -> SourceError:
    """Return what a status means for a purpose: the one table of errors."""
    if status == 401:
        return SessionExpired(what)
    if status == 429:
        return WaitUntil(what, _DEFAULT_WAIT)
    if status in (408, 500, 502, 503, 504) or status >= 505:
        return Retry(what)
    if purpose in (Purpose.LOGIN, Purpose.LIST):
        hint = "check user, password and rights" if status == 403 else "check `url` and the vendor's own keys"
        return StopSource(f"{what}; {hint}")
    if status in (409, 425):
        return NotYet(what)
    if status in (404, 410):
        return MediaNotFound(what)
    if status == 403:
        return GiveUp(what, GapReason.FORBIDDEN)
    return GiveUp(what, GapReason.VENDOR_ERROR)


def translate(error: Exception, what: str) -> SourceError:
    """Turn an HTTP library's error into one of ours; its text is not passed on, it may hold the URL."""
    name = type(error).__name__
    match error:
        case aiohttp.ServerFingerprintMismatch():
            return StopSource(f"{what}: the certificate is not the one in `tls_fingerprint`")
        case aiohttp.ClientConnectorCertificateError() | aiohttp.ClientConnectorSSLError():
            return StopSource(
                f"{what}: the certificate could not be verified ({name});"
                " give the CA in `ca_file` or pin `tls_fingerprint`"
            )
        case aiohttp.ClientPayloadError():
            return Truncated(f"{what}: the answer ended early")
        case aiohttp.ClientConnectorError():
            why = error.os_error.strerror or name
            return Retry(f"{what}: could not connect ({why}); is `url` right and the host up?")
        case TimeoutError():
            return Retry(f"{what}: no answer in time ({name})")
        case aiohttp.ClientConnectionError() | OSError():
            return Retry(f"{what}: the connection was lost ({name})")
        case _:
            return BadAnswer(f"{what}: the answer is no HTTP that can be read ({name})")


def _query(path: str, params: Params | None) -> str:
    if not params:
        return ""
    # %20 for a space, not +: not every phone system's server decodes the latter
    return ("&" if "?" in path else "?") + urlencode({k: str(v) for k, v in params.items()}, quote_via=quote, safe="")


def _form(form: Params) -> dict[str, str]:
    return {k: str(v) for k, v in form.items()}


async def twice(call: Callable[[], Awaitable[T]]) -> T:
    """Run a call of a source without sessions; a 401 is tried once more, then the password is wrong."""
    try:
        return await call()
    except SessionExpired:
        pass
    try:
        return await call()
    except SessionExpired as error:
        raise StopSource(f"{error.message}; check user name and password or token") from error
