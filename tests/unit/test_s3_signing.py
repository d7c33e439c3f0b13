"""Credentials and signatures: AWS's own published examples, the credential chain, renewal, and silence in logs."""

import asyncio
import logging
import sys
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from unittest.mock import patch

import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from config.settings import Archive
from storage.errors import StoreRefused, StoreUnavailable
from storage.s3.address import Address
from storage.s3.signing import Signer
from storage.s3.transport import EMPTY_SHA256
from tests.support.clock import FakeClock

KEY = "AKIAIOSFODNN7EXAMPLE"
SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
HOST = "examplebucket.s3.amazonaws.com"
EXAMPLES = [  # "Signature Calculations for the Authorization Header: single chunk", Amazon S3 API reference
    ("/test.txt", {"Range": "bytes=0-9"}, "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"),
    ("/?lifecycle", {}, "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"),
    ("/?prefix=J&max-keys=2", {}, "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"),
]


def signer(clock: FakeClock | None = None, *, keys: bool = False) -> Signer:
    """Return a signer with AWS's sample keys, or with none of its own."""
    archive = Archive(bucket="examplebucket")
    if keys:
        archive = Archive(bucket="examplebucket", access_key_id=SecretStr(KEY), secret_access_key=SecretStr(SECRET))
    return Signer(archive, "us-east-1", clock or FakeClock())


async def sign(who: Signer) -> str:
    """Sign something and return the Authorization header."""
    return (await who.sign("GET", f"https://{HOST}/", {"Host": HOST}, EMPTY_SHA256))["Authorization"]


def use_process(monkeypatch: pytest.MonkeyPatch, folder: Path, *, good_for: int, expires_in: timedelta) -> None:
    """Have the AWS chain run a program that hands out KEY1, KEY2, … with a token, and fails after `good_for` calls."""
    program = folder / "keys.py"
    count = folder / "count"
    count.write_text("0")
    expires = (datetime.now(UTC) + expires_in).isoformat()
    program.write_text(
        f"import json, pathlib, sys\n"
        f"count = pathlib.Path({str(count)!r})\n"
        f"n = int(count.read_text()) + 1\n"
        f"count.write_text(str(n))\n"
        f"if n > {good_for}: sys.exit('out of keys')\n"
        f"print(json.dumps(dict(Version=1, AccessKeyId=f'KEY{{n}}', SecretAccessKey='s3cret',"
        f" SessionToken=f'TOKEN{{n}}', Expiration={expires!r})))\n"
    )
    config = folder / "config"
    config.write_text(f"[default]\ncredential_process = {sys.executable} -I -S {program}\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))


@pytest.mark.parametrize(("target", "headers", "signature"), EXAMPLES)
async def test_signatures_are_those_of_aws(target: str, headers: dict[str, str], signature: str) -> None:
    """The signature of AWS's published example requests comes out, for the time of the injected clock."""
    who = signer(FakeClock(datetime(2013, 5, 24, tzinfo=UTC)), keys=True)
    signed = await who.sign("GET", f"https://{HOST}{target}", {"Host": HOST, **headers}, EMPTY_SHA256)
    assert signed["Authorization"].endswith(f"Signature={signature}")
    assert signed["X-Amz-Content-SHA256"] == EMPTY_SHA256


NAMES = st.sampled_from(["Content-Type", "If-None-Match", "x-amz-meta-watermark", "Range", "x-amz-checksum-sha256"])
VALUES = st.text('aZ09 \t*/+=;:,"-é', max_size=40)
QUERY = st.dictionaries(st.text("abz-", min_size=1, max_size=8), st.text("a1 /=&%~é", max_size=8), max_size=4)


@given(
    st.sampled_from(["GET", "PUT", "POST", "DELETE", "HEAD"]),
    st.text("abc/~.-_= é%\n", max_size=40),
    QUERY,
    st.dictionaries(NAMES, VALUES, max_size=5),
    st.sampled_from([None, "the-token"]),
    st.binary(max_size=4),
)
def test_signatures_are_those_of_botocore(
    method: str, key: str, query: dict[str, str], headers: dict[str, str], token: str | None, body: bytes
) -> None:
    """Whatever is asked for, botocore's signer comes to the same headers."""
    at, digest = datetime(2026, 3, 5, 23, 59, 59, tzinfo=UTC), sha256(body).hexdigest()
    url = Address("b", "eu-west-1", "https://example.net:444/base", "example.net:444").url(key, query)
    who = Signer(Archive(bucket="b"), "eu-west-1", FakeClock(at))
    who._credentials = Credentials(KEY, SECRET, token)
    ours = asyncio.run(who.sign(method, url, {"Host": "example.net:444", **headers}, digest))
    theirs = AWSRequest(method, url, {"Host": "example.net:444", **headers}, body)
    with patch("botocore.auth.get_current_datetime", lambda: at.replace(tzinfo=None)):
        S3SigV4Auth(Credentials(KEY, SECRET, token), "s3", "eu-west-1").add_auth(theirs)
    assert ours == dict(theirs.headers.items())


async def test_the_key_changes_with_the_day_and_with_the_credentials() -> None:
    """A process that lives over midnight, or whose credentials are replaced, signs with the new key at once."""
    clock = FakeClock(datetime(2026, 3, 5, 23, 59, 59, tzinfo=UTC))
    who = signer(clock, keys=True)
    before = await sign(who)
    await clock.sleep(1)
    assert "/20260306/us-east-1/s3/aws4_request" in await sign(who)
    clock = FakeClock(datetime(2026, 3, 5, 23, 59, 59, tzinfo=UTC))
    who._clock, who._credentials = clock, Credentials(KEY, "another")
    assert await sign(who) != before


async def test_the_chain_is_asked_where_no_keys_are_configured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys and session token of the environment are used, and the token is sent."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "FROMENV")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s3cret")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "the-token")
    who = signer()
    signed = await who.sign("GET", f"https://{HOST}/", {"Host": HOST}, EMPTY_SHA256)
    assert "Credential=FROMENV/" in signed["Authorization"]
    assert signed["X-Amz-Security-Token"] == "the-token"
    assert who.hide("FROMENV may not, said the-token") == "*** may not, said ***"


async def test_no_credentials_at_all_is_said() -> None:
    """Without keys and without a chain that has any, the sentence names both ways to provide them."""
    with pytest.raises(StoreRefused, match=r"archive\.access_key_id.*environment"):
        await sign(signer())


async def test_a_broken_chain_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A credential program that fails is somebody's to correct."""
    use_process(monkeypatch, tmp_path, good_for=0, expires_in=timedelta(minutes=2))
    with pytest.raises(StoreRefused, match="credential chain failed"):
        await sign(signer())


async def test_temporary_credentials_are_renewed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Credentials about to expire are replaced before they are used; failing renewal is trouble that passes."""
    use_process(monkeypatch, tmp_path, good_for=2, expires_in=timedelta(minutes=2))
    who = signer()
    assert "Credential=KEY2/" in await sign(who)
    with pytest.raises(StoreUnavailable, match="could not be renewed"):
        await sign(who)


async def test_renewed_but_expired_credentials_are_trouble(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A program that hands out expired credentials is not believed."""
    use_process(monkeypatch, tmp_path, good_for=9, expires_in=timedelta(minutes=-2))
    with pytest.raises(StoreUnavailable, match="could not be renewed"):
        await sign(signer())


async def test_many_first_requests_ask_the_chain_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Requests that start together share one answer of the chain."""
    use_process(monkeypatch, tmp_path, good_for=1, expires_in=timedelta(hours=1))
    who = signer()
    assert all("Credential=KEY1/" in signed for signed in await asyncio.gather(*(sign(who) for _ in range(5))))


async def test_temporary_credentials_that_last_are_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As long as they are good for a while, nobody is asked again."""
    use_process(monkeypatch, tmp_path, good_for=1, expires_in=timedelta(hours=1))
    who = signer()
    assert "Credential=KEY1/" in await sign(who)
    assert "Credential=KEY1/" in await sign(who)


async def test_nothing_of_a_signature_is_logged(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even at debug level neither secret, token nor signature reaches a log."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "FROMENV")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s3cret")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "the-token")
    with caplog.at_level(logging.DEBUG):
        signature = (await sign(signer())).rpartition("=")[2]
    assert not any(told in caplog.text for told in ("s3cret", "the-token", signature))
