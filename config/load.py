"""Reading the configuration file: from a path to `Settings`, or to one `ConfigError` that names every mistake.

The `[[sources]]` are `config.sources`, `[retention]` is `config.retention_rules`; what a single value may be is
`config.values`, secrets are `config.secret`.
"""

import stat
import tomllib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from config import values as v
from config.mistakes import ConfigError, Mistakes, Wrong, quoted, read_table, refuse_unknown, shown
from config.retention import Retention
from config.retention_rules import read_retention
from config.secret import Surroundings
from config.settings import MIB, Archive, Broker, Runtime, Settings, Source, VendorKeys
from config.sources import SourceFields, read_sources

VARIABLE = "CALLVAULT_CONFIG"
_MOST_PARTS = 10_000  # of one multipart upload, https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html
_TABLES = ("archive", "broker", "runtime", "retention", "sources")

__all__ = ["ConfigError", "find_config", "load", "load_retention"]


def find_config(option: Path | None, environ: Mapping[str, str]) -> Path:
    """Return the file to read: `--config`, else `CALLVAULT_CONFIG`. ConfigError when neither names one."""
    told = option or environ.get(VARIABLE)
    if not told:
        sentence = f"no configuration: give --config FILE or set {VARIABLE}; `callvault init` writes one to start from"
        raise ConfigError(None, [sentence])
    return Path(told)


def load(path: Path, vendors: Mapping[str, VendorKeys], environ: Mapping[str, str]) -> Settings:
    """Return what the file says. ConfigError with all mistakes at once; secrets are read, and never shown.

    Relative paths of secrets and certificates start at the file's folder, `state_dir` at the working directory.
    """
    told = _parse(path)
    mistakes = Mistakes()
    around = Surroundings(path.absolute().parent, environ)
    refuse_unknown("", told, _TABLES, {}, mistakes)
    archive = _section("archive", told, around, mistakes)
    _check_archive(told, mistakes)
    broker = _section("broker", told, around, mistakes)
    _check_broker(told, broker, mistakes)
    runtime = {"state_dir": Runtime().state_dir.absolute()} | _section("runtime", told, around, mistakes)
    sources = read_sources(told.get("sources"), vendors, around, mistakes)
    _check_sizes(Runtime(**runtime), sources, mistakes)
    names = [fields["name"] for _, fields in sources if "name" in fields]
    retention = read_retention(told.get("retention"), names, mistakes)
    if mistakes.lines:
        raise ConfigError(path, mistakes.lines)
    return Settings(
        archive=Archive(**archive),
        broker=Broker(**broker) if "broker" in told else None,
        runtime=Runtime(**runtime),
        retention=retention,
        sources=tuple(Source(**fields) for _, fields in sources),
    )


def load_retention(path: Path, sources: Sequence[str]) -> Retention:
    """Return the `[retention]` of a file, whatever else is in it; `sources` are the names that rules may match."""
    told = _parse(path)
    mistakes = Mistakes()
    if "retention" not in told:
        mistakes.add("", "retention", "missing; write [retention] with a mode and a default, as in a configuration")
    found = read_retention(told.get("retention"), sources, mistakes)
    if mistakes.lines:
        raise ConfigError(path, mistakes.lines)
    return found


def _parse(path: Path) -> dict[str, Any]:
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise ConfigError(path, [f"no such file; `callvault init --config {path}` writes one to start from"]) from None
    except (OSError, ValueError) as error:  # a path with a NUL is a ValueError
        reason = (error.strerror if isinstance(error, OSError) else None) or "not a path"
        raise ConfigError(path, [f"cannot be read ({reason.lower()}); a TOML file is expected"]) from None
    try:
        return tomllib.loads(raw.decode("utf-8-sig"))  # some editors begin a file with a byte order mark
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ConfigError(path, [f"line {line} is not UTF-8 text; save the file as UTF-8"]) from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(path, [f"not TOML: {error}; texts stand in quotes, tables in [brackets]"]) from None
    except (ValueError, RecursionError):  # a number of thousands of digits, brackets thousands deep
        raise ConfigError(path, ["not TOML that can be read: a number too long or brackets nested too deep"]) from None


def _state_dir(value: object) -> Path:
    told = v.text(value)
    if not told.isprintable():
        raise Wrong(f"{quoted(told)} is not a path")
    path = Path(told).absolute()
    try:
        taken = not stat.S_ISDIR(path.stat().st_mode)
    except FileNotFoundError:
        taken = False
    except OSError as error:
        raise Wrong(f"{quoted(told)} cannot be looked at ({(error.strerror or 'not a path').lower()})") from None
    if taken:
        raise Wrong(f"{quoted(path)} is a file; a folder is expected, it is made when it is missing")
    return path


def section_parsers(around: Surroundings) -> Mapping[str, Mapping[str, Callable[[object], object]]]:
    """Return the keys of the tables that are there once, and how each is read."""
    return {
        "archive": {
            "bucket": v.bucket,
            "prefix": v.prefix,
            "endpoint_url": v.web_address,
            "region": v.text,
            "access_key_id": around.secret,
            "secret_access_key": around.secret,
        },
        "broker": {
            "url": partial(around.queue, v.BROKER_SCHEMES),
            "state_url": partial(around.queue, v.STATE_SCHEMES),
        },
        "runtime": {
            "state_dir": _state_dir,
            "processes": v.at_least(1),
            "part_bytes": v.at_least(5 * MIB),
            "transfers": v.at_least(1),
        },
    }


def _section(name: str, told: Mapping[str, Any], around: Surroundings, mistakes: Mistakes) -> dict[str, Any]:
    """Return the keys of `[archive]`, `[broker]` or `[runtime]` that are right."""
    table, parsers = told.get(name, {}), section_parsers(around)[name]
    if not isinstance(table, dict):
        mistakes.add("", name, f"a table is expected, found {shown(table)}; write [{name}] on a line of its own")
        return {}
    refuse_unknown(f"[{name}]", table, parsers, {}, mistakes)
    return read_table(f"[{name}]", table, parsers, mistakes)


def _check_archive(told: Mapping[str, Any], mistakes: Mistakes) -> None:
    table = told.get("archive", {})
    if not isinstance(table, dict):
        return
    if "bucket" not in table:
        mistakes.add("[archive]", "bucket", 'missing; write bucket = "acme-calls"')
    pair = ("access_key_id", "secret_access_key")
    for given, lacking in (pair, pair[::-1]):
        if given in table and lacking not in table:
            sample = f'{lacking} = {{ env = "NAME" }}'
            mistakes.add("[archive]", lacking, f"missing, {given} is there; write {sample}, or leave both out")


def _check_broker(told: Mapping[str, Any], broker: Mapping[str, Any], mistakes: Mistakes) -> None:
    table = told.get("broker")
    if not isinstance(table, dict):
        return
    if "url" not in table:
        mistakes.add("[broker]", "url", "missing; write it, or leave [broker] out for the embedded Valkey of `up`")
    if "url" in broker and "state_url" not in table:
        scheme = broker["url"].get_secret_value().partition("://")[0].lower()
        if scheme not in v.STATE_SCHEMES:
            sentence = f"missing; leases and watermarks need a Redis or Valkey of their own beside {scheme}://"
            mistakes.add("[broker]", "state_url", f'{sentence}: write state_url = "redis://127.0.0.1:6379/0"')


def _check_sizes(runtime: Runtime, sources: list[SourceFields], mistakes: Mistakes) -> None:
    most = runtime.part_bytes * _MOST_PARTS
    for at, fields in sources:
        if fields.get("max_recording_bytes", 0) > most:
            sentence = f"an upload has {_MOST_PARTS} parts of part_bytes at most; write {most} or less, or larger parts"
            mistakes.add(at, "max_recording_bytes", sentence)
