"""The `[[sources]]` of the configuration file: keys that all share, and which keys a vendor adds.

The other tables are `config.load`; a vendor's own keys are read by `config.options`.
"""

from collections.abc import Callable, Mapping
from typing import Any

from config import values as v
from config.mistakes import Mistakes, meant, quoted, read_table, refuse_unknown, shown
from config.options import read_options
from config.secret import Surroundings
from config.settings import VendorKeys

SourceFields = tuple[str, dict[str, Any]]
"""How a source is called in messages, and its fields; they are complete when there is no mistake."""

_REQUIRED = {"name": '"hq"', "vendor": '"yeastar"', "url": '"https://pbx.example.net:8088"'}


def source_parsers(around: Surroundings) -> Mapping[str, Callable[[object], object]]:
    """Return the keys that every source may have, `vendor` aside, and how each is read."""
    return {
        "name": v.source_name,
        "url": v.web_address,
        "timezone": v.zone,
        "schedule": v.schedule,
        "lookback": v.duration,
        "settle": v.duration,
        "start_from": v.moment,
        "max_connections": v.at_least(1),
        "requests_per_second": v.rate,
        "ca_file": around.certificates,
        "tls_fingerprint": v.fingerprint,
        "give_up_after": v.duration,
        "max_recording_bytes": v.at_least(1),
    }


def read_sources(
    told: object, vendors: Mapping[str, VendorKeys], around: Surroundings, mistakes: Mistakes
) -> list[SourceFields]:
    """Return the sources in the order of the file; what is wrong with them goes to `mistakes`."""
    if told is None or told == []:
        sentence = "missing, so there is nothing to archive; write [[sources]] and below it name, vendor and url"
        mistakes.add("", "[[sources]]", sentence)
        return []
    if not isinstance(told, list) or not all(isinstance(table, dict) for table in told):
        mistakes.add("", "sources", "a list of tables is expected; write [[sources]], in double brackets, before each")
        return []
    found: list[SourceFields] = []
    first: dict[str, int] = {}
    for number, table in enumerate(told, start=1):
        name = table.get("name")
        at = f"sources[{number}]" + (f" {quoted(name)}" if isinstance(name, str) else "")
        if isinstance(name, str) and first.setdefault(name, number) != number:
            mistakes.add(at, "name", f"used by sources[{first[name]}] already; write another, it is part of the keys")
        found.append((at, _read_source(at, table, vendors, around, mistakes)))
    return found


def _read_source(
    at: str, table: Mapping[str, Any], vendors: Mapping[str, VendorKeys], around: Surroundings, mistakes: Mistakes
) -> dict[str, Any]:
    for key, sample in _REQUIRED.items():
        if key not in table:
            mistakes.add(at, key, f"missing; write e.g. {key} = {sample}")
    vendor = _vendor(at, table, vendors, mistakes)
    known, elsewhere = _known_keys([*source_parsers(around), "vendor"], vendor, vendors)
    refuse_unknown(at, table, known, elsewhere, mistakes)
    fields: dict[str, Any] = read_table(at, table, source_parsers(around), mistakes)
    if "ca_file" in table and "tls_fingerprint" in table:
        mistakes.add(at, "tls_fingerprint", "ca_file is there too; write one of the two")
    if vendor is None:
        return fields
    keys = vendors[vendor]
    if keys.needs_timezone and "timezone" not in table:
        sample = 'timezone = "Europe/Rome"'
        mistakes.add(at, "timezone", f"missing; {vendor} gives times without an offset: write e.g. {sample}")
    return fields | {"vendor": vendor, "options": read_options(at, table, keys.options, around, mistakes)}


def _vendor(at: str, table: Mapping[str, Any], vendors: Mapping[str, VendorKeys], mistakes: Mistakes) -> str | None:
    """Return the source's vendor where it is a known one."""
    if "vendor" not in table:
        return None
    name = table["vendor"]
    if isinstance(name, str) and name in vendors:
        return name
    close = meant(name, vendors) if isinstance(name, str) else ""
    mistakes.add(at, "vendor", f"{shown(name)} is not a vendor{close}; known are {', '.join(sorted(vendors))}")
    return None


def _known_keys(
    common: list[str], vendor: str | None, vendors: Mapping[str, VendorKeys]
) -> tuple[list[str], dict[str, str]]:
    """Return the keys a source may have, and what to say of other vendors' keys."""
    owners: dict[str, list[str]] = {}
    for name in sorted(vendors):
        for key in vendors[name].options.model_fields:
            owners.setdefault(key, []).append(name)
    if vendor is None:  # then any vendor's key may be the right one
        return [*common, *owners], {}
    known = [*common, *vendors[vendor].options.model_fields]
    others = {key: f"a key of {' and '.join(names)}; this source is {vendor}" for key, names in owners.items()}
    return known, {key: sentence for key, sentence in others.items() if key not in known}
