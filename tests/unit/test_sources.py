"""The sources of a configuration file: common keys, secrets, and the keys that a vendor adds."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import certifi
import pytest
from pydantic import SecretStr, field_validator

from config.mistakes import ConfigError
from config.options import is_secret
from config.settings import VendorKeys, VendorOptions
from tests.support.configuration import ENVIRON, RIGHT, mistakes, only, read
from tests.support.vendor_shapes import VerbaShape

URL = 'url = "https://pbx.example.net:8088"'
PASSWORD = 'password = { env = "HQ_PASSWORD" }'
AT = 'sources[1] "hq": '


@pytest.mark.parametrize(
    ("key", "wrong", "expected"),
    [
        ("name", 'name = "HQ_1"', 'is not a name; write 1 to 40 of a-z, 0-9 and "-"'),
        ("name", f'name = "{"a" * 41}"', "is not a name"),
        ("name", "name = 5", "a text in quotes is expected, found 5"),
        ("vendor", 'vendor = "yeaster"', 'did you mean "yeastar"?; known are catapult, imagicle, verba, xivo, yeastar'),
        ("vendor", "vendor = 5", "5 is not a vendor; known are"),
        ("timezone", 'timezone = "Europe/Roma"', 'is not an IANA time zone such as "Europe/Rome"; did you mean'),
        ("timezone", 'timezone = "europe/rome "', 'did you mean "Europe/Rome"?'),
        ("timezone", 'timezone = "Europe"', "is not an IANA time zone"),
        ("timezone", 'timezone = "../etc/passwd"', "is not an IANA time zone"),
        ("url", 'url = "pbx.example.net"', "does not begin with https:// or http://"),
        ("url", 'url = "ftp://pbx.example.net"', "does not begin with https:// or http://"),
        ("url", 'url = "https:///recordings"', "names no host"),
        ("url", 'url = "https://pbx.example.net:99999"', "host or port cannot be read"),
        ("url", 'url = "https://[::1"', "host or port cannot be read"),
        ("url", 'url = "https://pbx example.net"', "has blanks"),
        ("url", 'url = "https://pbx.example.net/?token=open-sesame-5550100"', 'nothing may follow a "?" or "#"'),
        ("url", 'url = "https://pbx.example.net/#x"', 'nothing may follow a "?" or "#"'),
        ("url", 'url = "https://api:open-sesame-5550100@pbx.example.net"', "a user name or password has no place"),
        ("url", 'url = "api:open-sesame-5550100@pbx.example.net"', "a user name or password has no place"),
    ],
)
def test_a_wrong_value_of_a_required_key_is_explained(tmp_path: Path, key: str, wrong: str, expected: str) -> None:
    """Name, vendor, zone, address: the one mistake names source and key, and what to write; no credential is shown."""
    lines = [wrong if line.startswith(f"{key} =") else line for line in RIGHT.splitlines()]
    said = [line for line in mistakes(tmp_path, "\n".join(lines)) if f": {key}: " in line]
    assert len(said) == 1
    assert said[0].startswith("sources[1]")
    assert expected in said[0]
    assert "open-sesame" not in said[0]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('lookback = "48"', '"48" is not a duration; write a whole number and one of s m h d, e.g. "48h"'),
        ("lookback = 48", "lookback: 48 is not a duration"),
        ('lookback = "1.5h"', "is not a duration"),
        ('lookback = "-1h"', "is not a duration"),
        ('settle = "٣m"', "is not a duration"),
        ('give_up_after = "999999999d"', "longer than ten years; write 3650d or less"),
        ("start_from = 2026-01-01T00:00:00", "has no offset; write 2026-01-01T00:00:00Z"),
        ('start_from = "2026-01-01T00:00:00Z"', "is a text; write the time without quotes"),
        ("start_from = 2026-01-01", "found 2026-01-01; write e.g. 2026-01-01T00:00:00Z"),
        ("start_from = 1767225600", "a date and time with an offset is expected, found 1767225600"),
        ("start_from = 0001-01-01T00:00:00+14:00", "is not between 1970 and 2100"),
        ("max_connections = 0", "a whole number, 1 or more, is expected, found 0"),
        ("requests_per_second = 0", "a number above 0 is expected, found 0"),
        ("requests_per_second = nan", "a number above 0 is expected, found nan"),
        ("requests_per_second = inf", "a number above 0 is expected, found inf"),
        ("requests_per_second = true", "a number above 0 is expected, found true"),
        ('requests_per_second = "5"', "a number above 0 is expected"),
        ("max_recording_bytes = 0", "a whole number, 1 or more"),
        ('schedule = "*/10 * * *"', "is not a cron line; write five fields"),
        ('schedule = "@hourly"', "is not a cron line; write five fields"),
        ('schedule = "0 */10 * * * *"', "is not a cron line; write five fields"),
        ('schedule = "61 * * * *"', "is not a cron line (bad minute)"),
        ('schedule = "0 0 30 2 *"', "is not a cron line (bad day-of-month)"),
        ('tls_fingerprint = "abc"', "64 hex digits, is expected, found 3 characters"),
        (f'tls_fingerprint = "{"g" * 64}"', "64 hex digits, is expected"),
        ('ca_file = "none.pem"', 'none.pem" cannot be read (no such file or directory)'),
        ('ca_file = "callvault.toml"', "holds no certificate in PEM form"),
        ('ca_file = "a\\u0000b"', "cannot be read (not a path)"),
        ('lookbak = "48h"', 'unknown key; did you mean "lookback"?'),
        ('options = "x"', "unknown key"),
        ('bucket = "x"', "it belongs in [archive]"),
        ('token = "open-sesame-5550100"', "a key of catapult and xivo; this source is yeastar"),
        ('pasword = "open-sesame-5550100"', 'unknown key; did you mean "password"?'),
        ('api_version = "v3"', "input should be 'v1.1.0' or 'v2.0.0', found \"v3\""),
    ],
)
def test_a_wrong_line_is_explained(tmp_path: Path, line: str, expected: str) -> None:
    """Each mistake names source and key and says what to write instead; what may be a secret is not shown."""
    said = only(tmp_path, f"{RIGHT}{line}\n")
    assert said.startswith(f"{AT}{line.partition(' ')[0]}: ")
    assert expected in said
    assert "open-sesame" not in said


def test_a_cron_line_that_never_comes_due_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A schedule without any date is a mistake, not a source that is silently never polled."""
    monkeypatch.setattr("config.values.CronSim", lambda line, start: iter(()))
    assert "it never comes due" in only(tmp_path, f'{RIGHT}schedule = "0 0 1 1 *"\n')


@pytest.mark.parametrize("key", ["name", "vendor", "url", "timezone", "username", "password"])
def test_a_missing_key_is_named(tmp_path: Path, key: str) -> None:
    """What a source cannot do without is asked for by name, with a line to write."""
    lines = [line for line in RIGHT.splitlines() if not line.startswith(f"{key} =")]
    said = only(tmp_path, "\n".join(lines))
    assert f": {key}: missing; " in said
    assert f"{key} = " in said


def test_a_vendor_without_offsets_needs_no_zone_of_others(tmp_path: Path) -> None:
    """Imagicle and Catapult may leave the zone out, and may give one."""
    lines = RIGHT.replace('"yeastar"', '"imagicle"')
    assert read(tmp_path, lines.replace('timezone = "Europe/Rome"\n', "")).source("hq").timezone is None
    assert str(read(tmp_path, lines).source("hq").timezone) == "Europe/Rome"


@pytest.mark.parametrize(
    ("password", "expected"),
    [
        ('"open-sesame-5550100"', 'a secret is never written here; write { env = "NAME" } or { file = "PATH" }'),
        ("12345678", "a secret is never written here"),
        ('{ env = "HQ_PASSWORD", file = "x" }', "a secret has one key, env or file"),
        ('{ envv = "HQ_PASSWORD" }', "a secret has one key, env or file"),
        ("{}", "a secret has one key, env or file"),
        ('{ env = "UNSET" }', "the environment variable UNSET is not set; set it, or name another"),
        ('{ env = "EMPTY" }', "the environment variable EMPTY is empty"),
        ('{ env = "open-sesame-5550100" }', "env is not the name of an environment variable"),
        ("{ env = 5 }", "env is not the name of an environment variable"),
        ("{ file = 5 }", "a text in quotes is expected, found 5"),
        ('{ file = "none" }', 'none" cannot be read (no such file or directory)'),
        ('{ file = "." }', "cannot be read (is a directory)"),
        ('{ file = "a\\u0000b" }', "cannot be read (not a path)"),
        ('{ file = "blank" }', 'blank" is empty; it must hold the secret'),
        ('{ file = "binary" }', "is not UTF-8 text"),
        ('{ file = "large" }', "is larger than 64 KiB"),
    ],
)
def test_a_secret_that_cannot_be_had_is_explained(tmp_path: Path, password: str, expected: str) -> None:
    """A literal, missing, empty or unreadable secret is one mistake that says where to put it, and never shows it."""
    (tmp_path / "blank").write_text("\n")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    (tmp_path / "large").write_text("x" * 70_000)
    said = only(tmp_path, RIGHT.replace(PASSWORD, f"password = {password}"))
    assert said.startswith(f"{AT}password: ")
    assert expected in said
    assert "open-sesame" not in said
    assert "12345678" not in said


@pytest.mark.parametrize(
    ("content", "secret"),
    [("pw", "pw"), ("pw\n", "pw"), ("pw\r\n", "pw"), (" pä w ", " pä w ")],
)
def test_one_trailing_newline_of_a_file_is_dropped(tmp_path: Path, content: str, secret: str) -> None:
    """A secret in a file, beside the configuration, is all of it but one newline at its end."""
    (tmp_path / "secret").write_bytes(content.encode())
    settings = read(tmp_path, RIGHT.replace(PASSWORD, 'password = { file = "secret" }'))
    assert settings.source("hq").secrets() == [secret]


@pytest.mark.parametrize("content", ["pw\n\n", "pw\r", "user\npw\n"])
def test_a_secret_of_several_lines_is_refused(tmp_path: Path, content: str) -> None:
    """No header and no form could carry it; better said here than by a login that fails oddly."""
    (tmp_path / "secret").write_bytes(content.encode())
    said = only(tmp_path, RIGHT.replace(PASSWORD, 'password = { file = "secret" }'))
    assert "holds a line break" in said
    assert "pw" not in said


def test_a_certificate_file_lies_beside_the_configuration(tmp_path: Path) -> None:
    """`ca_file` is looked for in the configuration's folder and must hold a certificate."""
    (tmp_path / "ca.pem").write_text(Path(certifi.where()).read_text())
    assert read(tmp_path, RIGHT + 'ca_file = "ca.pem"\n').source("hq").ca_file == tmp_path / "ca.pem"


def test_a_certificate_is_checked_in_one_way(tmp_path: Path) -> None:
    """A CA file and a pinned certificate exclude each other."""
    (tmp_path / "ca.pem").write_text(Path(certifi.where()).read_text())
    said = only(tmp_path, f'{RIGHT}ca_file = "ca.pem"\ntls_fingerprint = "{"a" * 64}"\n')
    assert said == f"{AT}tls_fingerprint: ca_file is there too; write one of the two"


def test_a_name_is_used_once(tmp_path: Path) -> None:
    """Two sources of one name would share keys in the bucket; the message says which has it already."""
    second = RIGHT[RIGHT.index("[[sources]]") :]
    said = only(tmp_path, RIGHT + second)
    assert said.startswith('sources[2] "hq": name: used by sources[1] already')


@pytest.mark.parametrize(
    ("sources", "expected"),
    [
        ("", "[[sources]]: missing, so there is nothing to archive"),
        ("sources = []", "[[sources]]: missing"),
        ("[sources]\nname = 'hq'", "sources: a list of tables is expected; write [[sources]], in double brackets"),
        ("sources = [1]", "sources: a list of tables is expected"),
        ("[[source]]", 'source: unknown key; did you mean "sources"?'),
    ],
)
def test_a_file_without_sources_is_explained(tmp_path: Path, sources: str, expected: str) -> None:
    """No source at all, or one in the wrong brackets, is said to be so."""
    found = mistakes(
        tmp_path,
        f'{sources if sources.startswith("sources") else ""}\n[archive]\nbucket = "acme"\n'
        + ("" if sources.startswith("sources") else sources),
    )
    assert any(expected in line for line in found)


def test_with_an_unknown_vendor_any_vendors_key_passes(tmp_path: Path) -> None:
    """A misspelt vendor is one mistake: the keys of the vendor that was meant are not mistakes as well."""
    said = only(tmp_path, RIGHT.replace('"yeastar"', '"yeester"') + 'token = { env = "OTHER" }\n')
    assert ": vendor: " in said


def verba(more: str) -> str:
    """Return a right file with one Verba source that has these keys of its own."""
    return RIGHT.replace('"yeastar"', '"verba"').replace(f'username = "api"\n{PASSWORD}\n', more)


def test_a_vendors_own_rule_is_told_in_its_words(tmp_path: Path) -> None:
    """A rule about several keys names them; it is not told where one of them is wrong already."""
    said = only(tmp_path, verba('api_key = { env = "OTHER" }\nusername = "api"\n'))
    assert said == f"{AT}username, password: username and password belong together: give both, or neither"
    both = verba('api_key = { env = "OTHER" }\nusername = "api"\npassword = { env = "UNSET" }\n')
    assert "UNSET is not set" in only(tmp_path, both)
    assert isinstance(read(tmp_path, verba('api_key = { env = "OTHER" }\n')).source("hq").options, VerbaShape)


def test_a_vendors_text_must_be_a_text(tmp_path: Path) -> None:
    """A number where a vendor expects a text is explained in the file's terms, not in pydantic's."""
    said = only(tmp_path, RIGHT.replace('username = "api"', "username = 5"))
    assert said == f"{AT}username: a text in quotes is expected, found 5"


class Talkative(VendorOptions):
    pin: SecretStr
    digits: int = 4

    @field_validator("pin")
    @classmethod
    def _numeric(cls, pin: SecretStr) -> SecretStr:
        raise ValueError(f"{pin.get_secret_value()}\nis not a number")


def test_a_vendors_validator_cannot_show_a_secret(tmp_path: Path) -> None:
    """A vendor's message that repeats the secret is masked, and other errors of pydantic's name what was found."""
    vendors = {"other": VendorKeys(Talkative, needs_timezone=False)}
    toml = RIGHT.replace('"yeastar"', '"other"').replace(f'username = "api"\n{PASSWORD}', 'pin = { env = "OTHER" }')
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, toml + 'digits = "four"\n', vendors=vendors)
    said = str(caught.value).split("\n")
    assert said[0].endswith(f"{AT}pin: *** is not a number")
    assert "digits: input should be a valid integer" in said[1]
    assert said[1].endswith('found "four"')
    assert ENVIRON["OTHER"] not in str(caught.value)


def test_a_secret_that_cannot_be_had_is_one_mistake(tmp_path: Path) -> None:
    """A vendor's rule about a secret's form is not told of a secret that could not be read."""
    vendors = {"other": VendorKeys(Talkative, needs_timezone=False)}
    toml = RIGHT.replace('"yeastar"', '"other"').replace(f'username = "api"\n{PASSWORD}', 'pin = { env = "UNSET" }')
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, toml, vendors=vendors)
    assert caught.value.mistakes == [f"{AT}pin: the environment variable UNSET is not set; set it, or name another"]


def test_which_keys_are_secrets() -> None:
    """A key is a secret by its type, optional or not."""
    assert [is_secret(VerbaShape, key) for key in ("api_key", "username", "password")] == [True, False, True]


def test_durations_and_times_are_read(tmp_path: Path) -> None:
    """Seconds, minutes, hours and days; a start with an offset becomes UTC."""
    toml = RIGHT + 'lookback = "7d"\nsettle = "30s"\ngive_up_after = "90m"\nstart_from = 2026-06-01T02:00:00+02:00\n'
    source = read(tmp_path, toml).source("hq")
    assert (source.lookback, source.settle, source.give_up_after) == (
        timedelta(days=7),
        timedelta(seconds=30),
        timedelta(minutes=90),
    )
    assert source.start_from == datetime(2026, 6, 1, tzinfo=UTC)
    assert source.start_from.tzinfo is UTC
