"""One source's HTTP: where requests go, what they may carry, how often they are tried.

Connectors name a path and parameters; everything else is decided here, the same for all vendors. A
credential leaves for the source's own origin only: redirects and links elsewhere are refused before
anything is sent. No message from here contains a query string, a header or a body beyond a short excerpt.
Bodies are `worker.rest.media`, TLS and time-outs `worker.rest.connect`, what a status means `worker.rest.meaning`;
caps, pace and pauses are `worker.limits`.
"""

import random
import re
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

import aiohttp
from yarl import URL

from config import logs
from config.clock import Clock
from config.settings import Source
from storage.sidecar import GapReason
from worker.errors import (
    BadAnswer,
    GiveUp,
    NotAudio,
    Retry,
    SessionExpired,
    SourceError,
    StopSource,
    Truncated,
    WaitUntil,
)
from worker.limits import LOST, PATIENCE, Gate, Slot
from worker.rest.connect import TIMEOUTS, open_session
from worker.rest.decode import looks_like_a_document
from worker.rest.hidden import Hidden
from worker.rest.meaning import DEFAULT_WAIT, WHOLE_SOURCE, Purpose, classify, translate
from worker.rest.media import BodyStream, decoded
from worker.rest.session import Session, TokenFile
from worker.rest.waiting import retry_after

__all__ = ["MAX_METADATA", "Params", "Purpose", "Reply", "RestClient", "segment", "twice"]

MAX_METADATA = 16 * 1024 * 1024
"""No listing or detail is read beyond this many bytes; a page of 1,000 rows is about 1 MB."""

MAX_DOCUMENT = 64 * 1024
"""What came in place of audio is not read beyond this many bytes to find out what it is."""

_TRIES = 3
_BACKOFF = 0.5  # seconds before the second try of a metadata call, doubled for the third
_MAX_HOPS = 3
_LEAST_WAIT = 3.0  # seconds an asked-for wait counts at least, so that they come to an end
_REDIRECTS = frozenset({301, 302, 303, 307, 308})

Params = Mapping[str, str | int]
T = TypeVar("T")


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


class _Asked(Retry):
    """The source asked for a short wait: nothing went wrong, and no try is used up by it."""

    def __init__(self, message: str, seconds: float) -> None:
        super().__init__(message)
        self.seconds = seconds


class RestClient:
    """Requests to one source. Used by many coroutines of one event loop.

    `state_dir` is this machine's folder for session tokens; it is made when the first one is kept.
    """

    def __init__(
        self,
        source: Source,
        gate: Gate,
        clock: Clock,
        *,
        state_dir: Path,
        cookies: bool = False,
        timeouts: aiohttp.ClientTimeout = TIMEOUTS,
    ) -> None:
        self.source = source
        self.clock = clock
        self.state_dir = state_dir
        self._timeouts = timeouts
        self._gate = gate
        self._base = URL(source.url.rstrip("/"))
        self._cookies = cookies
        self._session: aiohttp.ClientSession | None = None
        self.hidden = Hidden(source.secrets())

    async def slot(self) -> Slot:
        """Wait for a slot to hold over several requests, such as a one-time link and its use."""
        return await self._gate.enter()

    async def pause(self, seconds: float, reason: str) -> None:
        """Leave the source alone, from all processes, for so many seconds: for waits not told in HTTP headers."""
        await self._gate.pause(seconds, reason)

    def session(self, login: Callable[[], Awaitable[str]], identity: str) -> Session:
        """Return the source's shared login. `login` returns a new token; `identity` is what it logs in with.

        A kept token is used only for the same identity, which is stored as a hash.
        """
        kept = TokenFile(self.state_dir, self.source.name, f"{self.source.url}\n{identity}")
        return Session(kept, login, self.hide, self.clock)

    def hide(self, secret: str) -> None:
        """Have a session token taken out of every message and log line from now on, in all its forms."""
        self.hidden.add(secret)
        logs.hide(secret)

    def clean(self, text: str) -> str:
        """Return text of the vendor's fit for a message: no secrets, one line, at most 300 characters."""
        return self.hidden.clean(text)

    def own(self, link: str, relative_to: str = "") -> str:
        """Resolve a link of the vendor's and return it as path and query below the base.

        Raises GiveUp `foreign_origin` where it leads to another origin, or carries credentials of its own.
        """
        try:
            url = URL(relative_to or str(self._base), encoded=True).join(URL(link))
            same = _origin(url) == _origin(self._base) and url.user is None
        except ValueError:
            same = False
        if not same:
            led = self.clean(link.split("?", maxsplit=1)[0])
            raise GiveUp(
                f"a link of {self.source.name} leads away from {self._base.origin()}: {led}"
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
        what = f"{self.source.name}: {method} {self.clean(target.path)}"
        held = slot or await self._gate.enter()
        try:
            if slot:  # the gate was passed some requests ago; the source may have asked for a pause since
                await self._gate.sit_out_pause()
            response = await self._follow(held, method, target, what, purpose, headers, json, form)
            inflate = decoded(response, what)
        except BaseException:
            if slot is None:
                await held.release()
            raise
        return BodyStream(inflate, response, what, held, self.clock, self._gate.progress, owns_slot=slot is None)

    async def open_audio(
        self,
        method: str,
        path: str,
        *,
        document: Callable[[bytes], SourceError],
        params: Params | None = None,
        headers: Mapping[str, str] | None = None,
        json: Any = None,
        form: Params | None = None,
        slot: Slot | None = None,
        absolute: bool = False,
    ) -> BodyStream:
        """Open a recording. A body that begins like HTML, XML or JSON is read and raised as what `document` says.

        `document` gets at most `MAX_DOCUMENT` bytes and returns the error, whose text must be cleaned.
        """
        stream = await self.open(
            method,
            path,
            purpose=Purpose.MEDIA,
            params=params,
            headers=headers,
            json=json,
            form=form,
            slot=slot,
            absolute=absolute,
        )
        try:
            is_document = looks_like_a_document(await stream.peek())
            body = await stream.head(MAX_DOCUMENT) if is_document else b""
        except BaseException:
            await stream.aclose()
            raise
        if is_document:
            await stream.aclose()
            error = document(body)
            # a document that says nothing the vendor's API is known to say: no recording, whatever it is
            raise NotAudio(error.message) if type(error) is BadAnswer else error
        return stream

    async def _follow(
        self,
        slot: Slot,
        method: str,
        target: URL,
        what: str,
        purpose: Purpose,
        headers: Mapping[str, str] | None,
        json: Any,
        form: Params | None,
    ) -> aiohttp.ClientResponse:
        """Send, and send again after each short wait the source asks for, a minute of them at most."""
        waited = 0.0
        while True:
            try:
                return await self._sent(slot, method, target, what, purpose, headers, json, form)
            except _Asked as error:
                waited += max(error.seconds, _LEAST_WAIT)
                if waited > PATIENCE:
                    raise

    async def _sent(
        self,
        slot: Slot,
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
                async with slot.waiting():
                    response = await session.request(
                        method, target, headers=headers, json=json, data=form and _form(form), allow_redirects=False
                    )
            except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
                raise (Retry(f"{what}: {LOST}") if slot.lost else translate(error, what)) from error
            slot.ends_by(response.close)
            self._gate.progress()
            if response.status == 206 and not _is_whole(response):
                response.close()
                raise Truncated(f"{what}: a part was sent though the whole was asked for")
            if response.status < 300:
                return response
            try:
                if response.status not in _REDIRECTS:
                    raise await self._refusal(response, what, purpose)
                link = response.headers.get("Location", "")
            finally:
                response.close()
            target = self._redirected(link, target, what, purpose)
            if response.status == 303:
                method, json, form = "GET", None, None
        raise BadAnswer(f"{what}: redirected more than {_MAX_HOPS} times")

    def _redirected(self, link: str, target: URL, what: str, purpose: Purpose) -> URL:
        try:
            return URL(f"{self._base.origin()}{self.own(link, str(target))}", encoded=True)
        except GiveUp as error:
            if purpose in WHOLE_SOURCE:  # there is no single recording to give up
                raise StopSource(f"{what}: {error.message}") from error
            raise

    async def _refusal(self, response: aiohttp.ClientResponse, what: str, purpose: Purpose) -> SourceError:
        body = b""
        with suppress(aiohttp.ClientError, TimeoutError, OSError):  # an excerpt for the message, if it comes
            body = await response.content.read(4096)
        said = self.clean(body.decode("utf-8", "replace"))
        error = classify(response.status, purpose, f"{what}: status {response.status}" + (f", {said}" if said else ""))
        wait = retry_after(response.headers, self.clock.now())
        # Bandwidth tells its clients to expect 403 as well as 429 for its limits (page "rate limits")
        if isinstance(error, WaitUntil) or (response.status in (403, 503) and wait is not None):
            seconds = DEFAULT_WAIT if wait is None else wait
            await self._gate.pause(seconds, f"{self.source.name} asked to wait {seconds:.0f} s ({response.status})")
            if seconds <= PATIENCE:  # short waits are sat out at the gate by whoever comes next
                return _Asked(f"{error.message}; asked to wait {seconds:.0f} s", seconds)
            return WaitUntil(f"{error.message}; asked to wait {seconds:.0f} s", seconds)
        return error

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            try:
                self._session = open_session(self.source, cookies=self._cookies, timeouts=self._timeouts)
            except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
                raise StopSource(
                    f"{self.source.name}: `ca_file` or `tls_fingerprint` cannot be used ({type(error).__name__}:"
                    f" {self.clean(str(error))})"
                ) from error
        return self._session

    async def aclose(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()


def _origin(url: URL) -> tuple[str, str | None, int | None]:
    """Return what makes an origin (RFC 6454): the scheme's own port is the same written or not."""
    return url.scheme, url.host, url.port


def _is_whole(response: aiohttp.ClientResponse) -> bool:
    """Tell whether a 206 holds everything: some servers answer so to a request without a range."""
    found = re.fullmatch(r"bytes 0-(\d+)/(\d+)", response.headers.get("Content-Range", "").strip())
    return found is not None and int(found[1]) + 1 == int(found[2])


def _query(path: str, params: Params | None) -> str:
    if not params:
        return ""
    # %20 for a space, not +: not every phone system's server decodes the latter
    return ("&" if "?" in path else "?") + urlencode({k: str(v) for k, v in params.items()}, quote_via=quote, safe="")


def _form(form: Params) -> dict[str, str]:
    return {k: str(v) for k, v in form.items()}


async def twice(call: Callable[[], Awaitable[T]], *, fatal: bool = True) -> T:
    """Run a call of a source without sessions; a 401 is tried once more, then the password is wrong.

    Not `fatal` where one recording is asked for: the listing was answered with the same password.
    """
    try:
        return await call()
    except SessionExpired:
        pass
    try:
        return await call()
    except SessionExpired as error:
        kind = StopSource if fatal else Retry
        raise kind(f"{error.message}; check user name and password or token") from error
