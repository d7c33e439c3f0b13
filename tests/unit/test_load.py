"""From a file to settings, and from a wrong file to all its mistakes: the file itself and the tables that come once."""

import pickle
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from config.load import find_config, load, section_parsers
from config.mistakes import ConfigError
from config.secret import Surroundings
from config.settings import MIB, Archive, Broker, Runtime, Settings, Source
from config.sources import source_parsers
from tests.support.configuration import ENVIRON, RIGHT, mistakes, only, read
from tests.support.vendor_shapes import SHAPES, YeastarShape

FULL = """
[archive]
bucket = "acme-calls"
prefix = "voice/eu/"
endpoint_url = "https://s3.example.net/"
region = "eu-west-1"
access_key_id = { env = "OTHER" }
secret_access_key = { file = "s3-secret" }

[broker]
url = "amqp://guest:pw@mq.example.net//"
state_url = { env = "STATE" }

[runtime]
state_dir = "state"
processes = 3
part_bytes = 5242880
transfers = 2

[[sources]]
name = "hq"
vendor = "yeastar"
url = "https://pbx.example.net:8088/pbx/"
timezone = "Europe/Rome"
schedule = "0 2 * * *"
lookback = "3d"
settle = "0s"
start_from = 2026-01-01T01:00:00+01:00
max_connections = 2
requests_per_second = 5
tls_fingerprint = "AB:FINGERS"
give_up_after = "90m"
max_recording_bytes = 1000
username = "api"
password = { env = "HQ_PASSWORD" }
api_version = "v2.0.0"
""".replace("FINGERS", ":".join(["cd"] * 31))


def test_every_key_arrives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file with every key set gives settings that say the same, in the types that the rest works with."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s3-secret").write_text("s3-key-material\n")
    settings = read(tmp_path, FULL, {**ENVIRON, "STATE": "rediss://redis.example.net/2"})
    assert settings.archive.prefix == "voice/eu/"
    assert settings.archive.endpoint_url == "https://s3.example.net"
    assert settings.archive.region == "eu-west-1"
    assert settings.archive.access_key_id
    assert settings.archive.access_key_id.get_secret_value() == "another-secret-5550101"
    assert settings.archive.secret_access_key
    assert settings.archive.secret_access_key.get_secret_value() == "s3-key-material"
    assert settings.broker
    assert settings.broker.url.get_secret_value() == "amqp://guest:pw@mq.example.net//"
    assert settings.broker.state_url
    assert settings.broker.state_url.get_secret_value() == "rediss://redis.example.net/2"
    assert settings.runtime == Runtime(state_dir=tmp_path / "state", processes=3, part_bytes=5 * MIB, transfers=2)
    source = settings.source("hq")
    password = source.secrets()
    assert password == ["open-sesame-5550100"]
    assert source == Source(
        name="hq",
        vendor="yeastar",
        url="https://pbx.example.net:8088/pbx",
        timezone=ZoneInfo("Europe/Rome"),
        schedule="0 2 * * *",
        lookback=timedelta(days=3),
        settle=timedelta(0),
        start_from=datetime(2026, 1, 1, tzinfo=UTC),
        max_connections=2,
        requests_per_second=5.0,
        tls_fingerprint="ab" + "cd" * 31,
        give_up_after=timedelta(minutes=90),
        max_recording_bytes=1000,
        options=source.options,
    )
    assert isinstance(source.options, YeastarShape)
    assert source.options.username == "api"
    assert source.options.api_version == "v2.0.0"


def test_defaults_are_those_of_the_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the file leaves out is as `config.settings` declares it; `state_dir` starts at the working directory."""
    monkeypatch.chdir(tmp_path)
    settings = read(tmp_path, RIGHT)
    assert settings.archive == Archive(bucket="acme-calls")
    assert settings.broker is None
    assert settings.runtime == Runtime(state_dir=tmp_path / ".callvault")
    source = settings.source("hq")
    assert (source.schedule, source.lookback, source.settle) == (
        "*/10 * * * *",
        timedelta(hours=48),
        timedelta(minutes=2),
    )
    assert source.max_recording_bytes == 2147483648


def test_no_setting_is_forgotten_by_the_loader(tmp_path: Path) -> None:
    """Each field of the settings can be written in the file, and nothing else can."""
    around = Surroundings(tmp_path, {})
    sections = section_parsers(around)
    for name, model in (("archive", Archive), ("broker", Broker), ("runtime", Runtime)):
        assert sections[name].keys() == model.model_fields.keys()
    assert {*source_parsers(around), "vendor", "options"} == Source.model_fields.keys()
    assert set(sections) | {"sources", "retention"} == Settings.model_fields.keys()


def test_all_mistakes_come_at_once(tmp_path: Path) -> None:
    """One run tells everything that is wrong, in every table, each line with file and key."""
    toml = """
buket = "x"
[archive]
prefix = "voice"
[broker]
url = "http://x"
[runtime]
transfers = 0
[[sources]]
name = "HQ"
vendor = "yeaster"
url = "pbx"
lookbak = "48h"
[[sources]]
vendor = "xivo"
url = "http://xivo"
schedule = "daily"
"""
    found = mistakes(tmp_path, toml)
    assert [line.split(": ")[:2] for line in found] == [
        ["buket", "unknown key"],
        ["[archive]", "prefix"],
        ["[archive]", "bucket"],
        ["[broker]", "url"],
        ["[runtime]", "transfers"],
        ['sources[1] "HQ"', "vendor"],
        ['sources[1] "HQ"', "lookbak"],
        ['sources[1] "HQ"', "name"],
        ['sources[1] "HQ"', "url"],
        ["sources[2]", "name"],
        ["sources[2]", "schedule"],
        ["sources[2]", "timezone"],
        ["sources[2]", "token"],
    ]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"[archive]\nbucket = \n", "line 2"),
        (b"[archive]\nbucket = 'a'\nregion = '\xff'\n", "line 3 is not UTF-8 text"),
        (b"a = " + b"9" * 5000, "a number too long"),
        (b"a = " + b"[" * 100_000, "nested too deep"),
    ],
)
def test_what_is_not_toml_is_said_with_its_line(tmp_path: Path, content: bytes, expected: str) -> None:
    """A file that cannot be parsed is one mistake that says where."""
    assert expected in only(tmp_path, content)


def test_a_byte_order_mark_is_no_mistake(tmp_path: Path) -> None:
    """A file saved by an editor that marks UTF-8 is read like any other."""
    assert read(tmp_path, b"\xef\xbb\xbf" + RIGHT.encode()).archive.bucket == "acme-calls"


def test_a_missing_file_says_how_to_get_one(tmp_path: Path) -> None:
    """Where there is no file, the message names it and `callvault init`."""
    path = tmp_path / "none.toml"
    with pytest.raises(ConfigError, match="callvault init --config") as caught:
        load(path, SHAPES, {})
    assert str(caught.value).startswith(f"{path}: no such file")


@pytest.mark.parametrize("name", ["", "a\0b"])
def test_what_is_no_file_cannot_be_read(tmp_path: Path, name: str) -> None:
    """A folder, or a path that no system knows, is a mistake, not a crash."""
    with pytest.raises(ConfigError, match="cannot be read"):
        load(tmp_path / name, SHAPES, {})


def test_the_file_is_the_option_or_the_variable(tmp_path: Path) -> None:
    """`--config` comes before CALLVAULT_CONFIG; without either the message names both and `init`."""
    environ = {"CALLVAULT_CONFIG": str(tmp_path / "b.toml")}
    assert find_config(tmp_path / "a.toml", environ) == tmp_path / "a.toml"
    assert find_config(None, environ) == tmp_path / "b.toml"
    for nothing in ({}, {"CALLVAULT_CONFIG": ""}):
        with pytest.raises(ConfigError) as caught:
            find_config(None, nothing)
        assert all(word in str(caught.value) for word in ("--config", "CALLVAULT_CONFIG", "callvault init"))


def test_the_error_travels_between_processes() -> None:
    """A ConfigError keeps its path and its mistakes when it is pickled."""
    error = ConfigError(Path("a.toml"), ["[archive]: bucket: missing", "x: y"])
    again = pickle.loads(pickle.dumps(error))
    assert (again.path, again.mistakes, str(again)) == (error.path, error.mistakes, str(error))


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        ('bucket = "a"', '[archive]: bucket: "a" is not a bucket name'),
        ('bucket = "s3://acme"', "without s3://"),
        ('bucket = "acme..calls"', "is not a bucket name"),
        ("bucket = 7", "[archive]: bucket: a text in quotes is expected, found 7"),
        ('bucket = " "', "is empty"),
        ('buckets = "b"\nbucket = "acme"', '[archive]: buckets: unknown key; did you mean "bucket"?'),
        ('bucket = "acme"\nzzz = 1', "[archive]: zzz: unknown key"),
        ('bucket = "acme"\n"a\\u001b[1m" = 1', '[archive]: "a\\x1b[1m": unknown key'),
        ('bucket = "acme"\nlookback = "1h"', "[archive]: lookback: it belongs in [[sources]]"),
        ('bucket = "acme"\nstate_dir = "x"', "[archive]: state_dir: it belongs in [runtime]"),
        ('bucket = "acme"\nprefix = "voice"', 'prefix: must end in "/"; write "voice/"'),
        ('bucket = "acme"\nprefix = "/voice/"', 'must not begin with "/"; write "voice/"'),
        ('bucket = "acme"\nprefix = "vo ice/"', "may hold"),
        ('bucket = "acme"\nprefix = "a//"', "has an empty"),
        ('bucket = "acme"\nprefix = "a/../"', '"." or ".." part'),
        (f'bucket = "acme"\nprefix = "{"a" * 512}/"', "at most 512"),
        ('bucket = "acme"\nendpoint_url = "s3.example.net"', "endpoint_url: "),
        ('bucket = "acme"\nregion = ""', "region: is empty"),
        ('bucket = "acme"\naccess_key_id = { env = "OTHER" }', "secret_access_key: missing, access_key_id is there"),
        (
            'bucket = "acme"\nsecret_access_key = { env = "OTHER" }',
            "access_key_id: missing, secret_access_key is there",
        ),
    ],
)
def test_a_wrong_archive_is_explained(tmp_path: Path, wrong: str, expected: str) -> None:
    """Each mistake about the bucket says what is wrong and what to write."""
    assert expected in only(tmp_path, RIGHT.replace('bucket = "acme-calls"', wrong))


def test_an_empty_prefix_is_one(tmp_path: Path) -> None:
    """The prefix may be written out as empty, which is its default."""
    assert read(tmp_path, RIGHT.replace('"acme-calls"', '"acme-calls"\nprefix = ""')).archive.prefix == ""


def test_the_archive_is_required(tmp_path: Path) -> None:
    """Without [archive] there is nowhere to put anything."""
    toml = RIGHT.replace('[archive]\nbucket = "acme-calls"\n', "")
    assert only(tmp_path, toml) == '[archive]: bucket: missing; write bucket = "acme-calls"'


@pytest.mark.parametrize("name", ["archive", "broker", "runtime"])
def test_a_section_that_is_no_table_is_explained(tmp_path: Path, name: str) -> None:
    """A value where a table belongs is one mistake that shows how a table is written."""
    toml = RIGHT.replace('[archive]\nbucket = "acme-calls"\n', "")
    head = f"{name} = true\n" + ("" if name == "archive" else '[archive]\nbucket = "acme"\n')
    assert only(tmp_path, head + toml) == (
        f"{name}: a table is expected, found true; write [{name}] on a line of its own"
    )


@pytest.mark.parametrize(
    ("broker", "expected"),
    [
        ("", "[broker]: url: missing"),
        ('url = "127.0.0.1:6379"', "is not an address"),
        ('url = "redis+cluster://a:6379"', "a cluster keeps on different machines"),
        ('url = "valkey://a:6379"', "write redis:// or rediss://"),
        ('url = "http://a"', "http:// is not one of redis, rediss, sentinel, amqp, amqps"),
        ('url = "redis:///0"', "names no host"),
        ('url = "redis://a:port/0"', "host or port cannot be read"),
        ('url = "redis://a b/0"', "has blanks"),
        ('url = "amqp://guest:pw@mq//"', "[broker]: state_url: missing; leases and watermarks"),
        ('url = "sentinel://a:26379;sentinel://b:26379"', "it lacks the name of the primary, ?master_name=NAME; write"),
        ('url = "sentinel://:pw@a:b/0?master_name=x"', "a host, a port or the number of the database cannot be read"),
        ('url = "amqps://mq//"\nstate_url = "amqp://mq//"', "state_url: amqp:// is not one of redis, rediss, unix"),
        ("url = 3", "a secret is never written here"),
        ('url = { env = "EMPTY" }', "the environment variable EMPTY is empty"),
        ('url = "redis://a/0"\nstat_url = "x"', 'unknown key; did you mean "state_url"?'),
    ],
)
def test_a_wrong_broker_is_explained(tmp_path: Path, broker: str, expected: str) -> None:
    """Each mistake about the broker says what is wrong; its address, which holds a password, is not shown."""
    said = only(tmp_path, f"[broker]\n{broker}\n{RIGHT}")
    assert expected in said
    assert "pw@" not in said


@pytest.mark.parametrize(
    "broker",
    [
        'url = "redis://127.0.0.1:6379/0"',
        'url = { env = "OTHER" }',
        'url = "amqps://mq//"\nstate_url = "unix:///run/valkey.sock"',
        'url = "sentinel://:pw@a/0?master_name=x;sentinel://b:26380"',
        'url = "amqps://mq//"\nstate_url = "sentinel://a/0?master_name=x"',
    ],
)
def test_brokers_that_are_right(tmp_path: Path, broker: str) -> None:
    """Redis alone, or another broker with a Redis beside it, is accepted, written plainly or as a secret."""
    assert read(tmp_path, f"[broker]\n{broker}\n{RIGHT}", {**ENVIRON, "OTHER": "rediss://:pw@a:6379/1"}).broker


@pytest.mark.parametrize(
    ("runtime", "expected"),
    [
        ("transfers = true", "transfers: a whole number, 1 or more, is expected, found true"),
        ("processes = 1.5", "processes: a whole number, 1 or more, is expected, found 1.5"),
        ("part_bytes = 5242879", "part_bytes: a whole number, 5242880 or more, is expected, found 5242879"),
        (f"transfers = -{'9' * 100}", "found an enormous number"),
        ("transfers = [1]", "found a list"),
        ("transfers = { a = 1 }", "found a table"),
        ("transfers = 10:00:00", "found 10:00:00"),
        (f'transfers = "{"x" * 99}\\n"', f'found "{"x" * 60}…"'),
        ('state_dir = "callvault.toml"', 'callvault.toml" is a file; a folder is expected'),
        ('state_dir = "a\\u0000b"', '"a\\x00b" is not a path'),
        (f'state_dir = "{"a" * 300}"', "cannot be looked at (file name too long)"),
    ],
)
def test_a_wrong_runtime_is_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runtime: str, expected: str
) -> None:
    """Each mistake about this machine says what was expected and what was found, on one line."""
    monkeypatch.chdir(tmp_path)
    assert expected in only(tmp_path, f"[runtime]\n{runtime}\n{RIGHT}")


def test_a_recording_must_fit_an_upload(tmp_path: Path) -> None:
    """A ceiling that 10,000 parts cannot reach is found before a recording of that size is."""
    said = only(tmp_path, RIGHT + "max_recording_bytes = 99999999999999\n")
    assert "max_recording_bytes: an upload has 10000 parts" in said
    assert str(8 * MIB * 10_000) in said
