"""What is wrong with a configuration, said to the person who wrote it: all of it at once, and never a secret.

Which values are right is `config.values`; this file only knows how a mistake is collected, shown and raised.
"""

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from datetime import date, time
from pathlib import Path

from config.retention import Retention, Rule
from config.settings import Archive, Broker, Runtime, Source

_LONGEST_ECHO = 60

_HOMES = (
    dict.fromkeys((field.name for field in fields(Rule)), "[[retention.rules]]")
    | dict.fromkeys((field.name for field in fields(Retention)), "[retention]")
    | dict.fromkeys(Broker.model_fields, "[broker]")
    | dict.fromkeys(Source.model_fields.keys() - {"options"}, "[[sources]]")
    | dict.fromkeys(Runtime.model_fields, "[runtime]")
    | dict.fromkeys(Archive.model_fields, "[archive]")
)
"""Where a key belongs that was found in another table."""


class Wrong(ValueError):
    """One value is wrong. The message is a sentence that follows the key's name; it carries no secret."""


class ConfigError(Exception):
    """The configuration cannot be used. `str()` gives one line for each mistake, each with the file and the key."""

    def __init__(self, path: Path | None, mistakes: Sequence[str]) -> None:
        super().__init__(path, mistakes)
        self.path = path
        self.mistakes = list(mistakes)

    def __str__(self) -> str:
        start = f"{self.path}: " if self.path else ""
        return "\n".join(f"{start}{mistake}" for mistake in self.mistakes)


class Mistakes:
    """The mistakes found so far, in the order of the file."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def add(self, at: str, key: str, sentence: str) -> None:
        """Remember that `key` of the table `at` is wrong."""
        line = f"{at}: {key}: {sentence}" if at else f"{key}: {sentence}"
        self.lines.append("".join(c if c.isprintable() else " " for c in line))


def quoted(text: str | Path) -> str:
    """Return text as it may stand in a message: quoted, one line, nothing invisible, 60 characters; paths are whole."""
    cut = str(text) if isinstance(text, Path) or len(text) <= _LONGEST_ECHO else f"{text[:_LONGEST_ECHO]}…"
    return '"' + "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in cut) + '"'


def _safe(key: str) -> str:
    plain = quoted(key)
    return plain[1:-1] if plain[1:-1] == key else plain


def shown(value: object) -> str:
    """Return how a value of the file that is no secret is named in a message."""
    match value:
        case str():
            return quoted(value)
        case bool():
            return str(value).lower()
        case int():
            return str(value) if abs(value) < 10**_LONGEST_ECHO else "an enormous number"
        case float():
            return str(value)
        case date() | time():
            return value.isoformat()
        case list():
            return "a list"
        case _:
            return "a table"


def meant(word: str, known: Iterable[str]) -> str:
    """Return a suggestion to append, such as `; did you mean "lookback"?`, or nothing."""
    by_lower = {name.lower(): name for name in known}
    close = difflib.get_close_matches(word.lower(), list(by_lower), n=1, cutoff=0.6)
    return f'; did you mean "{by_lower[close[0]]}"?' if close else ""


def refuse_unknown(
    at: str, told: Iterable[str], known: Iterable[str], elsewhere: Mapping[str, str], mistakes: Mistakes
) -> None:
    """Add a mistake for each key that is not known; `elsewhere` is what to say of some of them.

    A key's value is not shown: behind a misspelt `password` stands one.
    """
    names = list(known)
    for key in told:
        if key not in names:
            home = _HOMES.get(key)
            hint = f"it belongs in {home}" if home and home != at else f"unknown key{meant(key, names)}"
            mistakes.add(at, _safe(key), elsewhere.get(key, hint))


def read_table(
    at: str,
    told: Mapping[str, object],
    parsers: Mapping[str, Callable[[object], object]],
    mistakes: Mistakes,
) -> dict[str, object]:
    """Return the keys of one table that are there and right; those that are wrong are added to `mistakes`."""
    values: dict[str, object] = {}
    for key, parse in parsers.items():
        if key in told:
            try:
                values[key] = parse(told[key])
            except Wrong as wrong:
                mistakes.add(at, key, str(wrong))
    return values
