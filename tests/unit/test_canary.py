"""A secret in every setting that can hold one appears in nothing that the process shows."""

import base64
import io
import logging
import pickle
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import quote

import pytest

from config.events import Event
from config.logs import configure_logging, get_logger
from config.mistakes import ConfigError
from config.options import is_secret
from config.settings import Settings
from tests.support.configuration import read
from tests.support.logs import logging_as_before
from tests.support.vendor_shapes import SHAPES

COMMON = """
[archive]
bucket = "acme-calls"
access_key_id = { env = "CANARY_KEY" }
secret_access_key = { file = "canary" }
[broker]
url = { env = "CANARY_BROKER" }
state_url = "redis://:canary-state-p%40ss@127.0.0.1:6379/0"
"""
ENVIRON = {"CANARY_KEY": "canary-access-key", "CANARY_BROKER": "amqp://guest:canary-broker@mq//"}


def everything(folder: Path) -> tuple[str, Mapping[str, str], list[str]]:
    """Return a file with every secret there is, its environment, and the secrets."""
    (folder / "canary").write_text("canary s3/secret+\n")
    secrets = ["canary-access-key", "canary s3/secret+", "canary-broker", "canary-state-p%40ss", "canary-state-p@ss"]
    toml, environ = COMMON, dict(ENVIRON)
    for vendor, keys in SHAPES.items():
        toml += f'[[sources]]\nname = "{vendor}"\nvendor = "{vendor}"\nurl = "https://{vendor}.example.net"\n'
        toml += 'timezone = "UTC"\n'
        for key in keys.options.model_fields:
            if is_secret(keys.options, key):
                name = f"CANARY_{vendor}_{key}"
                environ[name] = f"canary-{vendor}-{key}-5550100"
                secrets.append(environ[name])
                toml += f'{key} = {{ env = "{name}" }}\n'
            elif key in ("username", "user_id"):
                toml += f'{key} = "archive"\n'
    return toml, environ, secrets


def forms(secret: str) -> Iterator[str]:
    """Yield what would give the secret away."""
    yield secret
    yield quote(secret, safe="")
    yield base64.b64encode(secret.encode()).decode()[:-4]


def assert_hidden(text: str, secrets: list[str]) -> None:
    """Fail when one of the secrets can be read out of the text."""
    assert not [form for secret in secrets for form in forms(secret) if form in text]


def test_settings_do_not_show_their_secrets(tmp_path: Path) -> None:
    """Printed, formatted, as a dictionary or as JSON, settings show asterisks; the redactor alone gets the values."""
    toml, environ, secrets = everything(tmp_path)
    settings = read(tmp_path, toml, environ)
    assert set(settings.secrets()) == set(secrets)
    for value in (
        settings,
        settings.archive,
        settings.broker,
        *settings.sources,
        *(s.options for s in settings.sources),
    ):
        assert_hidden(f"{value!r} {value!s} {value}", secrets)
    assert_hidden(f"{settings.model_dump()}", secrets)
    assert_hidden(settings.model_dump_json(include={"archive": True, "broker": True}), secrets)


def test_mistakes_do_not_show_secrets(tmp_path: Path) -> None:
    """Whatever else is wrong, the message, its repr, its traceback and its pickle hold no secret."""
    toml, environ, secrets = everything(tmp_path)
    spoilt = [
        toml.replace('vendor = "', 'vendor = "un'),
        toml.replace('"UTC"', '"Mars"').replace("https:", "gopher:"),
        toml.replace("bucket", "buckets").replace("password =", "pasword =").replace("token =", "tokn ="),
        toml.replace('username = "archive"', "username = 5"),
        toml.replace("{ env =", "{ envv ="),
        toml.replace('"redis://', '"redis+cluster://'),
        # written where they never belong
        *(
            toml.replace(f'{{ env = "{name}" }}', f'"{value}"')
            for name, value in environ.items()
            if "BROKER" not in name
        ),
        *(toml.replace(f'env = "{name}"', f'env = "{value}"') for name, value in environ.items()),
        toml.replace("https://yeastar.example.net", "https://api:canary-broker@yeastar.example.net"),
        toml.replace("https://yeastar.example.net", "https://yeastar.example.net?token=canary-broker"),
    ]
    for text in spoilt:
        with pytest.raises(ConfigError) as caught:
            read(tmp_path, text, environ)
        shown = "".join(traceback.format_exception(caught.value))
        assert_hidden(f"{caught.value} {caught.value!r} {shown} {pickle.dumps(caught.value)!r}", secrets)


@pytest.mark.parametrize("as_json", [True, False])
def test_the_log_does_not_show_secrets(tmp_path: Path, *, as_json: bool) -> None:
    """At DEBUG, in fields, nested, in messages of libraries, in errors and tracebacks, encoded or not: none."""
    toml, environ, secrets = everything(tmp_path)
    settings: Settings = read(tmp_path, toml, environ)
    out = io.StringIO()
    with logging_as_before():
        report_everything(settings, environ, secrets, out, as_json=as_json)
    assert len(out.getvalue().splitlines()) > 100
    assert_hidden(out.getvalue(), secrets)


def report_everything(
    settings: Settings, environ: Mapping[str, str], secrets: list[str], out: io.StringIO, *, as_json: bool
) -> None:
    """Push every secret through every way into the log."""
    configure_logging(json=as_json, level="debug", secrets=settings.secrets(), stream=out)
    log, theirs = get_logger(), logging.getLogger("aiohttp.client")
    log.debug(Event.POLL_STARTED, settings=settings, environ=dict(environ))
    for secret in secrets:
        basic = base64.b64encode(f"archive:{secret}".encode()).decode()
        for text in (secret, quote(secret, safe=""), f"Basic {basic}", basic, f"https://u:{secret}@h/?x={secret}"):
            log.debug(Event.SOURCE_PAUSED, detail=f"said {text}", rows=[{"deep": (text,)}], raw=text.encode())
            theirs.debug("sent %s", {"header": text})
            try:
                raise ExceptionGroup(f"all of {text}", [ValueError(text), KeyError({"x": text})])  # noqa: TRY301 (the traceback is the point)
            except ExceptionGroup as error:
                log.exception(Event.BUG, error=error)
                theirs.exception("failed: %r", error)
