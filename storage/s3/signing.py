"""Who asks: credentials by botocore, and the SigV4 signature of one request. Nothing here is ever logged.

The signature is computed here, a tenth of what botocore's signer takes for it: the key is derived once a day, the
SHA-256 is the one that the caller has computed already, headers are written once. botocore's would also write the
canonical request, session token included, to the debug log. Tests hold it to AWS's published examples and to
botocore's own signatures.
"""

import asyncio
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256 as hash_of

from botocore.credentials import Credentials, ReadOnlyCredentials, RefreshableCredentials
from botocore.exceptions import BotoCoreError, ClientError
from botocore.session import Session

from config.clock import Clock
from config.settings import Archive
from storage.errors import StoreRefused, StoreUnavailable


@dataclass(frozen=True, slots=True, repr=False)
class _Key:
    """What signs the requests of one day: derived from the secret, and good for one region only."""

    scope: str
    prefix: str
    """What an Authorization header begins with."""
    secret: bytes


def _key(access_key: str, secret: str, day: str, region: str) -> _Key:
    scope = f"{day}/{region}/s3/aws4_request"
    derived = f"AWS4{secret}".encode()
    for step in scope.split("/"):
        derived = hmac.digest(derived, step.encode(), "sha256")
    return _Key(scope, f"AWS4-HMAC-SHA256 Credential={access_key}/{scope}, SignedHeaders=", derived)


def _authorization(key: _Key, method: str, url: str, headers: Mapping[str, str], sha256: str, timestamp: str) -> str:
    """Return the Authorization header for a request whose URL is written as it is sent; all headers are signed."""
    target = url.partition("://")[2].partition("/")[2]
    path, _, query = target.partition("?")
    pairs = sorted(pair.partition("=")[::2] for pair in query.split("&")) if query else ()
    told = sorted((name.lower(), " ".join(value.split())) for name, value in headers.items())
    names = ";".join([name for name, _ in told])
    canonical = "\n".join([
        method,
        f"/{path}",
        "&".join([f"{name}={value}" for name, value in pairs]),
        *[f"{name}:{value}" for name, value in told],
        "",
        names,
        sha256,
    ])  # fmt: skip
    to_sign = f"AWS4-HMAC-SHA256\n{timestamp}\n{key.scope}\n{hash_of(canonical.encode()).hexdigest()}"
    signature = hmac.digest(key.secret, to_sign.encode(), "sha256").hex()
    return f"{key.prefix}{names}, Signature={signature}"


class Signer:
    """Signs requests with the configured keys or, where there are none, with the usual AWS credential chain."""

    def __init__(self, archive: Archive, region: str, clock: Clock) -> None:
        self._region = region
        self._clock = clock
        self._looking = asyncio.Lock()
        self._credentials: Credentials | None = None
        self._told: list[str] = []
        self._key = lru_cache(maxsize=2)(_key)  # two around midnight
        if archive.access_key_id and archive.secret_access_key:
            self._credentials = Credentials(
                archive.access_key_id.get_secret_value(), archive.secret_access_key.get_secret_value()
            )

    async def sign(self, method: str, url: str, headers: Mapping[str, str], sha256: str) -> dict[str, str]:
        """Return `headers` plus those that make the request authentic; `sha256` is the body's, in hex.

        StoreRefused where there are no credentials, StoreUnavailable where temporary ones could not be renewed.
        """
        frozen = await self._frozen()
        timestamp = self._clock.now().strftime("%Y%m%dT%H%M%SZ")
        signed = {**headers, "X-Amz-Date": timestamp, "X-Amz-Content-SHA256": sha256}
        if frozen.token:
            signed["X-Amz-Security-Token"] = frozen.token
        key = self._key(frozen.access_key, frozen.secret_key, timestamp[:8], self._region)
        signed["Authorization"] = _authorization(key, method, url, signed, sha256, timestamp)
        return signed

    def hide(self, text: str) -> str:
        """Return text of the store's without the key id and session token last used, should it repeat them."""
        for told in self._told:
            text = text.replace(told, "***")
        return text

    async def _frozen(self) -> ReadOnlyCredentials:
        known = self._credentials or await self._asked()
        if isinstance(known, RefreshableCredentials) and known.refresh_needed():
            frozen = await _renewed(known)
        else:
            frozen = known.get_frozen_credentials()
        self._told = [told for told in (frozen.access_key, frozen.token) if told]
        return frozen

    async def _asked(self) -> Credentials:
        async with self._looking:  # one question to the chain, however many first requests there are
            self._credentials = self._credentials or await _find()
            return self._credentials


async def _find() -> Credentials:
    """Ask the AWS chain, in a thread: it may read files, run a program or call the instance's metadata service."""
    try:
        found = await asyncio.to_thread(lambda: Session().get_credentials())
    except (BotoCoreError, ClientError) as exc:
        raise StoreRefused(
            f"the AWS credential chain failed ({exc}): correct it, or set archive.access_key_id"
        ) from exc
    if found is None:
        raise StoreRefused(
            "no credentials for the bucket: set archive.access_key_id and archive.secret_access_key, or provide"
            " them the usual AWS way (environment, profile, instance or container role)"
        )
    return found


async def _renewed(credentials: RefreshableCredentials) -> ReadOnlyCredentials:
    """Renew temporary credentials in a thread; botocore keeps the old ones while they are good and renewal fails."""
    try:
        return await asyncio.to_thread(credentials.get_frozen_credentials)
    except (BotoCoreError, ClientError, RuntimeError) as exc:  # RuntimeError: the new ones had expired already
        raise StoreUnavailable(f"temporary AWS credentials could not be renewed ({exc})") from exc
