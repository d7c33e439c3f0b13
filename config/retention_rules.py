"""The `[retention]` table and its `[[retention.rules]]`: how they are read, and what of them makes no sense.

What a promise costs if it is wrong decides here: nothing is guessed, and nothing that is written has no effect.
"""

import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from config import values as v
from config.mistakes import Mistakes, Wrong, meant, quoted, read_table, refuse_unknown, shown
from config.retention import MATCHED, LockMode, Period, Retention, Rule

_AT = "[retention]"
_OFF = "none"
_KEEP = re.compile(r"([0-9]{1,6})(y|mo|d)")
_LONGEST = Period(months=1200)
_DIRECTIONS = ("inbound", "outbound", "internal", "unknown")


def keep(value: object) -> Period:
    """Return a span of the calendar written as a whole number and one of y, mo, d."""
    match = _KEEP.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        bare = str(value) if not isinstance(value, bool) else ""
        if re.fullmatch(r"[0-9]{1,6}", bare):
            raise Wrong(f'{bare} has no unit; write "{bare}y" for years, "{bare}mo" for months or "{bare}d" for days')
        raise Wrong(
            f'{shown(value)} is not a time to keep; write a whole number and one of y mo d, e.g. "7y" or "18mo"'
        )
    number, unit = int(match[1]), match[2]
    period = Period(days=number) if unit == "d" else Period(months=number * (12 if unit == "y" else 1))
    if number == 0:
        raise Wrong(f'{shown(value)} keeps nothing; write "1d" or more')
    if period.about > _LONGEST.about:
        raise Wrong(f"{shown(value)} is longer than a hundred years; write {_LONGEST} or less")
    return period


def _mode(value: object) -> LockMode | None:
    known = (_OFF, *LockMode)
    if not isinstance(value, str) or value not in known:
        hint = meant(value, known) if isinstance(value, str) else ""
        raise Wrong(f"{shown(value)} is not one of {', '.join(known)}{hint}")
    return None if value == _OFF else LockMode(value)


def _switch(value: object) -> bool:
    if not isinstance(value, bool):
        raise Wrong(f"true or false is expected, without quotes, found {shown(value)}")
    return value


_PARSERS = {
    "mode": _mode,
    "accept_compliance_lock": _switch,
    "default": keep,
    "max": keep,
    "expire": _switch,
    "expire_at_most": v.at_least(1),
}
_RULE_PARSERS = {"name": v.text, "keep": keep}


def read_retention(told: object, sources: Sequence[str], mistakes: Mistakes) -> Retention:
    """Return the policy, `sources` being the names that there are; what is wrong with it goes to `mistakes`."""
    if told is None:
        return Retention()
    if not isinstance(told, dict):
        mistakes.add(
            "", "retention", f"a table is expected, found {shown(told)}; write [retention] on a line of its own"
        )
        return Retention()
    refuse_unknown(_AT, told, [*_PARSERS, "rules"], {}, mistakes)
    fields: dict[str, Any] = read_table(_AT, told, _PARSERS, mistakes)
    if "mode" not in told:
        mistakes.add(_AT, "mode", 'missing; write mode = "governance" to lock recordings, or mode = "none"')
    if fields.get("mode") and "default" not in told:
        mistakes.add(_AT, "default", 'missing; write how long a call that no rule matches is kept, e.g. default = "7y"')
    if fields.get("mode") is LockMode.COMPLIANCE and not fields.get("accept_compliance_lock"):
        sentence = "nobody, not even the account's owner, can take such a lock back"
        mistakes.add(_AT, "mode", f'{sentence}; write accept_compliance_lock = true beside it, or mode = "governance"')
    if fields.get("expire") and "mode" in fields and fields["mode"] is None:
        sentence = "with mode none no recording is promised an end, so that none is ever due"
        mistakes.add(_AT, "expire", f'{sentence}; write mode = "governance" and a default, or expire = false')
    most = fields.get("max", Retention().max)
    _refuse_longer(_AT, "default", fields.get("default"), most, mistakes)
    return Retention(**fields, rules=_read_rules(told.get("rules", []), sources, most, mistakes))


def _refuse_longer(at: str, key: str, found: Period | None, most: Period, mistakes: Mistakes) -> None:
    if found and found.about > most.about:
        mistakes.add(at, key, f'{found} is beyond max, {most}; write "{most}" or less, or raise max in [retention]')


def _read_rules(told: object, sources: Sequence[str], most: Period, mistakes: Mistakes) -> tuple[Rule, ...]:
    if not isinstance(told, list) or not all(isinstance(table, dict) for table in told):
        sentence = "a list of tables is expected; write [[retention.rules]], in double brackets, before each"
        mistakes.add(_AT, "rules", sentence)
        return ()
    found = []
    first: dict[str, int] = {}
    for number, table in enumerate(told, start=1):
        name = table.get("name")
        at = f"retention.rules[{number}]" + (f" {quoted(name)}" if isinstance(name, str) else "")
        if isinstance(name, str) and first.setdefault(name, number) != number:
            sentence = f"used by retention.rules[{first[name]}] already; write another, sidecars tell rules by it"
            mistakes.add(at, "name", sentence)
        found.append(_read_rule(at, table, sources, most, mistakes))
    return tuple(rule for rule in found if rule)


def _read_rule(
    at: str, table: Mapping[str, Any], sources: Sequence[str], most: Period, mistakes: Mistakes
) -> Rule | None:
    for key, sample in {"name": '"trading desk"', "match": '{ source = "hq" }', "keep": '"10y"'}.items():
        if key not in table:
            mistakes.add(at, key, f"missing; write e.g. {key} = {sample}")
    refuse_unknown(at, table, [*_RULE_PARSERS, "match"], {}, mistakes)
    fields: dict[str, Any] = read_table(at, table, _RULE_PARSERS, mistakes)
    _refuse_longer(at, "keep", fields.get("keep"), most, mistakes)
    match = _read_match(at, table["match"], sources, mistakes) if "match" in table else None
    return Rule(**fields, match=match) if match and fields.keys() == _RULE_PARSERS.keys() else None


def _read_match(at: str, told: object, sources: Sequence[str], mistakes: Mistakes) -> dict[str, str] | None:
    sample = 'write e.g. match = { source = "hq", queue = "trading*" }'
    if not isinstance(told, dict):
        mistakes.add(at, "match", f"a table is expected, found {shown(told)}; {sample}")
        return None
    if not told:
        mistakes.add(at, "match", f"is empty; {sample}, or raise default, which is for all calls")
        return None
    inside = f"{at}: match"
    refuse_unknown(inside, told, MATCHED, {}, mistakes)
    patterns: dict[str, Any] = read_table(inside, told, dict.fromkeys(MATCHED, v.text), mistakes)
    for key, known, what in (("source", sources, "the sources are"), ("direction", _DIRECTIONS, "it is one of")):
        pattern = patterns.get(key)
        if pattern and known and not any(fnmatchcase(name, pattern) for name in known):
            sentence = f"{quoted(pattern)} matches nothing{meant(pattern, known)}; {what} {', '.join(known)}"
            mistakes.add(inside, key, sentence)
    return patterns
