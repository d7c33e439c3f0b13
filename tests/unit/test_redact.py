"""What is taken out of everything that is shown, and what is left in."""

import base64
import copy
import hashlib
import json
import re
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from config.redact import LONGEST, MASK, Redactor

SECRET = 'Pä ss/wo+rd"\\<5550100>&'


@pytest.mark.parametrize(
    "form",
    [
        SECRET,
        quote(SECRET),
        quote(SECRET, safe=""),
        re.sub(r"%..", lambda match: match[0].lower(), quote(SECRET, safe="")),
        quote_plus(SECRET),
        repr(SECRET)[1:-1],
        json.dumps(SECRET)[1:-1],
        escape(SECRET),
        hashlib.md5(SECRET.encode()).hexdigest(),
        hashlib.md5(SECRET.encode()).hexdigest().upper(),
    ],
)
def test_a_secret_is_found_in_every_spelling(form: str) -> None:
    """Encoded for an address, printed by Python, in JSON, in XML or as its MD5, a secret is masked."""
    assert Redactor([SECRET]).text(f"before {form} after") == f"before {MASK} after"


@settings(deadline=None)  # no test depends on how fast the machine is
@given(before=st.binary(max_size=5), after=st.binary(max_size=5), secret=st.text(min_size=8, max_size=30))
def test_a_secret_is_found_in_base64_wherever_it_starts(before: bytes, after: bytes, secret: str) -> None:
    """Inside `user:password` in base64, in either alphabet, what the secret leaves is masked."""
    whole = before + secret.encode() + after
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        clean = Redactor([secret]).known(encode(whole).decode())
        assert MASK in clean
        assert len(clean.replace(MASK, "")) <= len(encode(before)) + len(encode(after)) + 4


@settings(deadline=None)  # no test depends on how fast the machine is
@given(st.text(min_size=4, max_size=40).filter(lambda s: MASK not in s and s not in MASK))
def test_no_known_secret_survives(secret: str) -> None:
    """Whatever its characters, a secret is in no text that comes out."""
    clean = Redactor([secret, ""]).text(f"{secret} and <{secret}>&token={secret}")
    assert not any(secret in piece for piece in clean.split(MASK))


def test_a_short_secret_is_masked_where_it_stands_alone() -> None:
    """A secret of one to three characters does not turn every word into asterisks."""
    assert (
        Redactor(["pw"]).text("pw is pw, not pwd-free or upward: 'pw'") == "*** is ***, not pwd-free or upward: '***'"
    )


def test_a_longer_secret_goes_first() -> None:
    """Where one secret begins with another, nothing of the longer one is left."""
    assert Redactor(["open", "open-sesame"]).text("open-sesame") == MASK


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("Authorization: Bearer abc.def-123", "Authorization: ***"),
        ("sent Bearer abc.def-123, refused", "sent Bearer ***, refused"),
        ("sent Basic dXNlcjpwYXNz= to it", "sent Basic *** to it"),
        ("redis://:hunter2@10.0.0.1:6379/0 is down", "redis://***@10.0.0.1:6379/0 is down"),
        ("https://u:p@ss@host/a?b=c", "https://***@host/a?b=c"),
        ("https://host:8088/a/user@example", "https://host:8088/a/user@example"),
        ("GET /x?token=abc&random=def&recording=a.wav", "GET /x?token=***&random=***&recording=a.wav"),
        ("/verba/api?apiKey=abc&action=x", "/verba/api?apiKey=***&action=x"),
        (
            "?access_token=abc&password=x&X-Amz-Signature=1f&n=1",
            "?access_token=***&password=***&X-Amz-Signature=***&n=1",
        ),
        ("?AWSAccessKeyId=AKIA&X-Amz-Security-Token=t", "?AWSAccessKeyId=***&X-Amz-Security-Token=***"),
        ('<Response type="RequestToken" token="abc">', '<Response type="RequestToken" token=***>'),
        ("api_key='abc def' rest", "api_key=*** rest"),
        ('{"token": "a\\"b", "size": 5}', '{"token": "***", "size": 5}'),
        ("{'Set-Cookie': 'sid=abc; x=y'}", "{'Set-Cookie': \"***\"}"),
        ("{'secret': b'abc'}", "{'secret': \"***\"}"),
        ("Cookie: a=b; c=d\nHost: x", "Cookie: ***\nHost: x"),
        ("x-amz-security-token:abc", "x-amz-security-token:***"),
        (
            "recording 12 of hq: 3 tries, key v1/recordings/a.wav",
            "recording 12 of hq: 3 tries, key v1/recordings/a.wav",
        ),
        ("password: the environment variable PW is not set", "password: the environment variable PW is not set"),
    ],
)
def test_what_looks_like_a_credential_is_masked(text: str, clean: str) -> None:
    """Credentials that no configuration named, such as session tokens, go by their form; the rest stays readable."""
    assert Redactor().text(text) == clean


@pytest.mark.parametrize(
    "name",
    [
        "token", "session_token", "secret", "client_secret", "password", "passwd", "passphrase", "Authorization",
        "cookie", "Set-Cookie", "signature", "X-Amz-Credential", "x_amz_date", "api_key", "apiKey", "access_key_id",
        "private_key", "random", "credentials",
    ],
)  # fmt: skip
def test_a_field_with_such_a_name_is_never_shown(name: str) -> None:
    """The name of a field is enough to hide it, at any depth; that it is absent or a flag may be seen."""
    redactor = Redactor()
    assert redactor.field(name, "x") == MASK
    assert redactor.field(name, 5550100) == MASK
    assert redactor.value({"a": [{name: {"b": 1}}]}) == {"a": [{name: MASK}]}
    assert redactor.field(name, None) is None
    assert redactor.field(name, value=True) is True


@pytest.mark.parametrize("name", ["key", "recording_id", "keys", "source", "randomised", "bytes"])
def test_other_fields_are_shown(name: str) -> None:
    """Object keys and ids are what a log is read for."""
    assert Redactor().field(name, "v1/recordings/a.wav") == "v1/recordings/a.wav"


def test_nothing_is_changed_in_place() -> None:
    """The record that is logged stays as it was: its owner goes on using it."""
    told = {"token": "abc", "rows": [{"password": "x"}, "?token=abc"], "n": 1}
    before = copy.deepcopy(told)
    assert Redactor().value(told) == {"token": MASK, "rows": [{"password": MASK}, "?token=***"], "n": 1}
    assert told == before


def test_values_become_what_json_can_hold() -> None:
    """Times, paths, bytes, errors, sets, odd numbers and objects are written as text, without secrets."""
    redactor = Redactor(["hunter2"])
    told = {
        "none": None,
        "flag": False,
        "count": 5,
        "ratio": 0.5,
        "nan": float("nan"),
        "when": datetime(2026, 3, 5, 12, tzinfo=UTC),
        "path": Path("/tmp/hunter2"),
        "raw": b"\xffhunter2",
        "error": ValueError("hunter2 is wrong"),
        "hidden": SecretStr("other"),
        "set": {"hunter2"},
        "tuple": (1, "hunter2"),
        "object": type("Thing", (), {"__repr__": lambda self: "<Thing hunter2>"})(),
        5: "number",
        "hunter2": "as a key",
    }
    clean = redactor.value(told)
    assert clean == {
        "none": None,
        "flag": False,
        "count": 5,
        "ratio": 0.5,
        "nan": "nan",
        "when": "2026-03-05T12:00:00+00:00",
        "path": "/tmp/***",
        "raw": "\\xff***",
        "error": "ValueError: *** is wrong",
        "hidden": MASK,
        "set": [MASK],
        "tuple": [1, MASK],
        "object": "<Thing ***>",
        "5": "number",
        MASK: "as a key",
    }
    json.dumps(clean, allow_nan=False)


def test_what_is_long_deep_or_endless_is_cut() -> None:
    """A field has 512 characters, fifty items and six levels at most, a structure that holds itself included."""
    redactor = Redactor(["hunter2"])
    assert redactor.text("x" * 600) == "x" * LONGEST + "…"
    assert redactor.text("x" * 509 + "hunter2") == "x" * 509 + MASK
    assert redactor.tail("x" * 600 + "hunter2", 10) == "…" + "x" * 7 + MASK
    assert redactor.tail("short", 10) == "short"
    assert len(redactor.text("y" * 10_000_000)) == LONGEST + 1
    long = redactor.value(list(range(60)))
    assert isinstance(long, list)
    assert len(long) == 50
    endless: dict[str, object] = {}
    endless["again"] = endless
    assert json.dumps(redactor.value(endless)).count("again") == 6
