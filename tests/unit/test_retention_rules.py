"""`[retention]` and its rules: what is read, and what is refused with which words."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from config.retention import LockMode, Period, Retention, Rule
from tests.support.configuration import RIGHT, mistakes, only, read

POLICY = """
[retention]
mode = "governance"
default = "7y"
max = "30y"
expire = false

[[retention.rules]]
name = "trading desk"
match = { source = "h*", queue = "trading*", direction = "inbound", number = "+4420*", agent = "*" }
keep = "18mo"

[[retention.rules]]
name = "short"
match = { queue = "lobby" }
keep = "90d"
"""
AT = 'retention.rules[1] "trading desk"'


def changed(old: str, new: str) -> str:
    """Return a right configuration with a policy in which one thing is different."""
    assert old in POLICY
    return RIGHT + POLICY.replace(old, new, 1)


def test_a_policy_arrives(tmp_path: Path) -> None:
    """Every key and rule comes in the types that the rest works with."""
    rules = (
        Rule(
            "trading desk",
            {"source": "h*", "queue": "trading*", "direction": "inbound", "number": "+4420*", "agent": "*"},
            Period(months=18),
        ),
        Rule("short", {"queue": "lobby"}, Period(days=90)),
    )
    expected = Retention(LockMode.GOVERNANCE, default=Period(months=84), max=Period(months=360), rules=rules)
    assert read(tmp_path, RIGHT + POLICY).retention == expected


@pytest.mark.parametrize("table", ["", '[retention]\nmode = "none"\n'])
def test_without_a_mode_nothing_is_promised(tmp_path: Path, table: str) -> None:
    """No table, or mode none, is no policy."""
    assert read(tmp_path, RIGHT + table).retention == Retention()


def test_expiry_is_switched_on_and_bounded(tmp_path: Path) -> None:
    """Off unless it is written; ten thousand recordings a run unless something else is."""
    told = read(tmp_path, changed("expire = false", "expire = true")).retention
    assert (told.expire, told.expire_at_most) == (True, 10_000)
    told = read(tmp_path, changed("expire = false", "expire = true\nexpire_at_most = 5")).retention
    assert told.expire_at_most == 5


def test_expiry_without_a_policy_is_refused(tmp_path: Path) -> None:
    """Nothing would ever be due: that is told, with what to write."""
    told = only(tmp_path, RIGHT + '[retention]\nmode = "none"\nexpire = true\n')
    assert told.startswith("[retention]: expire: with mode none no recording is promised an end, so that none is ever")
    assert told.endswith('write mode = "governance" and a default, or expire = false')


def test_the_ends_that_a_call_may_have() -> None:
    """Of default and rules the first and the last, counted from a moment: months differ in length."""
    start = datetime(2026, 2, 1, tzinfo=UTC)
    rules = (Rule("a", {"queue": "a"}, Period(months=1)), Rule("b", {"queue": "b"}, Period(months=84)))
    policy = Retention(LockMode.GOVERNANCE, default=Period(days=29), rules=rules)
    assert policy.first_end(start) == datetime(2026, 3, 1, tzinfo=UTC)
    assert policy.last_end(start) == datetime(2033, 2, 1, tzinfo=UTC)
    assert (Retention().first_end(start), Retention().last_end(start)) == (None, None)


def test_compliance_is_read_when_it_is_accepted(tmp_path: Path) -> None:
    """With the sentence in the file that it cannot be undone."""
    table = '[retention]\nmode = "compliance"\naccept_compliance_lock = true\ndefault = "1d"\n'
    assert read(tmp_path, RIGHT + table).retention.mode is LockMode.COMPLIANCE


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('mode = "governance"', 'mode = "Governence"', '"Governence" is not one of none, governance, compliance; did'),
        ('mode = "governance"', "mode = 7", "[retention]: mode: 7 is not one of none, governance, compliance"),
        ('mode = "governance"', "", '[retention]: mode: missing; write mode = "governance" to lock recordings, or mod'),
        ('mode = "governance"', 'mode = "compliance"', "[retention]: mode: nobody, not even the account's owner, can"),
        ('default = "7y"', "", "[retention]: default: missing; write how long a call that no rule matches is kept"),
        ('default = "7y"', 'default = "7"', '7 has no unit; write "7y" for years, "7mo" for months or "7d" for days'),
        ('default = "7y"', "default = 7", '7 has no unit; write "7y" for years'),
        ('default = "7y"', 'default = "7 years"', '"7 years" is not a time to keep; write a whole number and one of y'),
        ('default = "7y"', 'default = "7m"', '"7m" is not a time to keep; write a whole number and one of y mo d'),
        ('default = "7y"', "default = true", "true is not a time to keep"),
        ('default = "7y"', 'default = "0d"', '"0d" keeps nothing; write "1d" or more'),
        ('default = "7y"', 'default = "101y"', '"101y" is longer than a hundred years; write 100y or less'),
        ('default = "7y"', 'default = "31y"', '[retention]: default: 31y is beyond max, 30y; write "30y" or less, or'),
        ("expire = false", "expire_at_most = 0", "expire_at_most: a whole number, 1 or more, is expected, found 0"),
        ("expire = false", 'expire = "no"', 'true or false is expected, without quotes, found "no"'),
        ("expire = false", "keep = 1", "[retention]: keep: it belongs in [[retention.rules]]"),
        ("expire = false", "expired = 1", '[retention]: expired: unknown key; did you mean "expire"?'),
        ('keep = "18mo"', 'keep = "400mo"', f'{AT}: keep: 400mo is beyond max, 30y; write "30y" or less, or raise max'),
        ('keep = "18mo"', "", f'{AT}: keep: missing; write e.g. keep = "10y"'),
        ('keep = "18mo"', 'keep = "18mo"\nmax = "1y"', f"{AT}: max: it belongs in [retention]"),
        ('keep = "18mo"', 'keep = "18mo"\nkeeep = "1y"', f'{AT}: keeep: unknown key; did you mean "keep"?'),
        ('name = "trading desk"', "", 'retention.rules[1]: name: missing; write e.g. name = "trading desk"'),
        ('name = "trading desk"', "name = 7", "retention.rules[1]: name: a text in quotes is expected, found 7"),
        ('name = "short"', 'name = "trading desk"', 'rules[2] "trading desk": name: used by retention.rules[1] alread'),
        ("agent =", "agnet =", f'{AT}: match: agnet: unknown key; did you mean "agent"?'),
        ('agent = "*"', "agent = 7", f"{AT}: match: agent: a text in quotes is expected, found 7"),
        ('source = "h*"', 'source = "hg"', f'{AT}: match: source: "hg" matches nothing; the sources are hq'),
        ('source = "h*"', 'source = "HQ"', f'{AT}: match: source: "HQ" matches nothing; did you mean "hq"?'),
        ('"inbound"', '"in"', f'{AT}: match: direction: "in" matches nothing; it is one of inbound, outbound, interna'),
        ('{ queue = "lobby" }', "{}", '"short": match: is empty; write e.g. match = { source = "hq", queue = "trading'),
        ('{ queue = "lobby" }', '"lobby"', '"short": match: a table is expected, found "lobby"; write e.g. match = {'),
        ('match = { queue = "lobby" }', "", '"short": match: missing; write e.g. match = { source = "hq" }'),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(tmp_path: Path, old: str, new: str, words: str) -> None:
    """One sentence, with the rule's name where it is a rule's, that says what to write instead."""
    assert words in only(tmp_path, changed(old, new))


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("retention = 7\n" + RIGHT, "retention: a table is expected, found 7; write [retention] on a line of its own"),
        (
            RIGHT + '[retention]\nmode = "none"\nrules = 7\n',
            "[retention]: rules: a list of tables is expected; write [[",
        ),
        (RIGHT + "[archives]\n", "archives: unknown key"),
    ],
)
def test_what_is_no_table_is_refused(tmp_path: Path, table: str, words: str) -> None:
    """With how the table is written."""
    assert words in only(tmp_path, table)


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    """Those of the rules beside those of the sources."""
    toml = changed('keep = "18mo"', 'keep = "18"').replace('"lobby"', "7").replace('url = "https', 'url = "ftp')
    assert len(mistakes(tmp_path, toml)) == 3


def test_a_rule_for_a_source_with_mistakes_is_not_blamed(tmp_path: Path) -> None:
    """Where no source can be read, what a rule's pattern would match is unknown."""
    toml = changed('default = "7y"', 'default = "7y"').replace('name = "hq"', 'name = "H Q"')
    assert "is not a name" in only(tmp_path, toml)


def test_the_version_of_a_policy_is_that_of_its_meaning() -> None:
    """Another spelling or order is the same version; another rule, span, pattern, default or mode is another."""
    one, two = Rule("a", {"queue": "x", "agent": "y"}, Period(months=24)), Rule("b", {"queue": "z"}, Period(days=1))
    policy = Retention(LockMode.GOVERNANCE, default=Period(months=12), rules=(one, two))
    same = Retention(
        LockMode.GOVERNANCE,
        accept_compliance_lock=True,
        default=Period(months=12),
        max=Period(months=240),
        rules=(two, Rule("a", {"agent": "y", "queue": "x"}, Period(months=24))),
    )
    assert same.version == policy.version
    others = {
        Retention(LockMode.COMPLIANCE, default=Period(months=12), rules=(one, two)).version,
        Retention(LockMode.GOVERNANCE, default=Period(months=13), rules=(one, two)).version,
        Retention(LockMode.GOVERNANCE, default=Period(months=12), rules=(one,)).version,
        Retention(LockMode.GOVERNANCE, default=Period(months=12), rules=(one, Rule("c", two.match, two.keep))).version,
        Retention(LockMode.GOVERNANCE, default=Period(months=12), rules=(one, Rule("b", two.match, one.keep))).version,
        Retention(LockMode.GOVERNANCE, default=Period(months=12), rules=(one, Rule("b", one.match, two.keep))).version,
    }
    assert len(others | {policy.version}) == 7
    assert len(policy.version) == 12


@pytest.mark.parametrize(
    ("period", "text"), [(Period(months=24), "2y"), (Period(months=18), "18mo"), (Period(days=90), "90d")]
)
def test_a_period_is_shown_as_it_is_written(period: Period, text: str) -> None:
    """Whole years as years."""
    assert str(period) == text
