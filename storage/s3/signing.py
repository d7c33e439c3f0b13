"""Who asks: credentials and the SigV4 signature of one request, by botocore. Nothing here is ever logged.

botocore's own signers write the canonical request, session token included, to the debug log; the subclass here
does the same steps without that, takes the time from the injected clock, and signs the SHA-256 that the caller has
computed already instead of hashing the body again.
"""

import asyncio
from collections.abc import Mapping
from typing import Any

from botocore.auth import SIGV4_TIMESTAMP, S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials, ReadOnlyCredentials, RefreshableCredentials
from botocore.exceptions import BotoCoreError, ClientError
from botocore.session import Session

from config.clock import Clock
from config.settings import Archive
from storage.errors import StoreRefused, StoreUnavailable


class _QuietAuth(S3SigV4Auth):
    """SigV4 for S3 over a payload hash that is known."""

    def __init__(self, credentials: ReadOnlyCredentials, region: str, sha256: str, timestamp: str) -> None:
        super().__init__(credentials, "s3", region)
        self._sha256 = sha256
        self._timestamp = timestamp

    def payload(self, request: AWSRequest) -> str:  # noqa: ARG002 - the signature is botocore's
        """Return the SHA-256 the caller knows."""
        return self._sha256

    def add_auth(self, request: AWSRequest) -> None:
        """Sign; the steps of `SigV4Auth.add_auth` without its debug log."""
        request.context["timestamp"] = self._timestamp
        steps: Any = self  # botocore's stubs leave out the steps meant for subclasses
        steps._modify_request_before_signing(request)  # noqa: SLF001 - the hook that S3SigV4Auth itself overrides
        signature = self.signature(self.string_to_sign(request, self.canonical_request(request)), request)
        steps._inject_signature_to_request(request, signature)  # noqa: SLF001 - as above


class Signer:
    """Signs requests with the configured keys or, where there are none, with the usual AWS credential chain."""

    def __init__(self, archive: Archive, region: str, clock: Clock) -> None:
        self._region = region
        self._clock = clock
        self._looking = asyncio.Lock()
        self._credentials: Credentials | None = None
        self._told: list[str] = []
        if archive.access_key_id and archive.secret_access_key:
            self._credentials = Credentials(
                archive.access_key_id.get_secret_value(), archive.secret_access_key.get_secret_value()
            )

    async def sign(self, method: str, url: str, headers: Mapping[str, str], sha256: str) -> dict[str, str]:
        """Return `headers` plus those that make the request authentic; `sha256` is the body's, in hex.

        StoreRefused where there are no credentials, StoreUnavailable where temporary ones could not be renewed.
        """
        timestamp = self._clock.now().strftime(SIGV4_TIMESTAMP)
        request = AWSRequest(method, url, dict(headers))
        _QuietAuth(await self._frozen(), self._region, sha256, timestamp).add_auth(request)
        return dict(request.headers.items())

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
