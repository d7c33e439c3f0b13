"""The documents in `deploy/`: that they speak of what the code does, and of all of it."""

import ast
import hashlib
import json
import re
import tomllib
from pathlib import Path

import pytest
import typer

import config
from config.events import Event
from storage.s3.refusals import _RIGHTS, Operation
from storage.sidecar import GapReason
from tasks.cli.command import app
from tasks.cli.common import Exit

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
PACKAGES = ("config", "storage", "worker", "tasks")
PAGES = sorted(path.name for path in DEPLOY.glob("*.md"))
OPERATIONS = (DEPLOY / "operations.md").read_text()
POLICY, DESTRUCTION = (
    json.loads((DEPLOY / f"{name}.json").read_text())["Statement"] for name in ("iam-policy", "iam-policy-destruction")
)
RIGHTS = {action for statement in (*POLICY, *DESTRUCTION) for action in statement["Action"]}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def section(title: str) -> str:
    """Return one section of the runbook."""
    return OPERATIONS.split(f"\n## {title}\n")[1].split("\n## ")[0]


def first_column(table: str) -> set[str]:
    """Return what stands in backticks in the first column of a section's table."""
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| ")]
    return {word for row in rows for word in re.findall(r"`([^`]+)`", row)}


def used(enum: str, package: str) -> dict[str, set[str]]:
    """Return which members of an enum the code of a package uses, by file name."""
    found: dict[str, set[str]] = {}
    for path in (ROOT / package).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == enum:
                found.setdefault(path.name, set()).add(node.attr)
    return found


def test_the_runbook_has_every_event_that_is_logged_and_invents_none() -> None:
    """Whoever meets an event in the log finds a line about it in operations.md."""
    logged = {Event[name].value for package in PACKAGES for names in used("Event", package).values() for name in names}
    told = first_column(section("The log"))
    assert logged <= told, "add these to the table of events"
    assert told <= logged, "these are never logged: take them out of the table"


def test_the_runbook_has_every_gap_reason() -> None:
    """Whoever meets a gap record finds out what happened and what helps."""
    assert first_column(section("Gaps")) == {reason.value for reason in GapReason}


def test_the_runbook_has_every_exit_code() -> None:
    """All codes that a verb may end with are explained, and those of the two signals."""
    codes = {
        int(code)
        for code in re.findall(r"^\| (\d+(?:, \d+)*) \|", section("Exit codes"), re.MULTILINE)
        if "," not in code
    }
    assert codes == {code.value for code in Exit}
    assert "| 130, 143 |" in section("Exit codes")


def test_the_policy_grants_what_the_code_asks_for_and_no_more() -> None:
    """Rights and S3 operations are equal: none missing, none left over."""
    operations = {name: names for name, names in used("Operation", "storage/s3").items() if name != "refusals.py"}
    assert {Operation[name] for names in operations.values() for name in names} == set(Operation) == set(_RIGHTS)
    needed = {right for told in _RIGHTS.values() for right in re.findall(r"s3:\w+", told)}
    assert needed == RIGHTS
    for statement in (*POLICY, *DESTRUCTION):
        assert statement["Effect"] == "Allow"
        assert statement["Action"] == sorted(set(statement["Action"]))
        assert "*" not in "".join(statement["Action"])


def test_each_right_to_delete_reaches_as_far_as_it_must() -> None:
    """Only probe objects may be hidden; versions go of those and of indexes, and of recordings by the second policy."""
    reach: dict[str, set[str]] = {}
    for statement in POLICY:
        resources = statement["Resource"] if isinstance(statement["Resource"], list) else [statement["Resource"]]
        for action in statement["Action"]:
            if "Delete" in action:
                reach.setdefault(action, set()).update(resources)
    here = "arn:aws:s3:::acme-calls/v1"
    assert reach == {
        "s3:DeleteObject": {f"{here}/probe/*"},
        "s3:DeleteObjectVersion": {f"{here}/probe/*", f"{here}/index/*"},
    }
    (destroying,) = DESTRUCTION
    assert destroying["Action"] == ["s3:DeleteObjectVersion"]
    assert destroying["Resource"] == [f"{here}/{kind}/*" for kind in ("gaps", "quarantine", "recordings")]


def test_a_deletion_is_asked_for_in_two_places_and_a_bypass_nowhere() -> None:
    """The probe removes its objects, `destroying` a version; no lock is ever asked to be bypassed."""
    deleting = {
        file: names & {"DELETE", "DELETE_VERSION"}
        for file, names in used("Operation", "storage/s3").items()
        if file != "refusals.py"
    }
    assert {file: names for file, names in deleting.items() if names} == {
        "probe.py": {"DELETE"},
        "destroying.py": {"DELETE_VERSION"},
    }
    assert not [right for right in RIGHTS if "bypass" in right.lower()]
    for path in (path for package in PACKAGES for path in (ROOT / package).rglob("*.py")):
        assert "bypass-governance" not in path.read_text().lower()


def test_each_right_has_its_reason() -> None:
    """The table beside the policies explains every right in them, and no other."""
    assert first_column((DEPLOY / "iam.md").read_text()) == RIGHTS


@pytest.mark.parametrize("page", PAGES)
def test_files_that_a_page_names_are_there(page: str) -> None:
    """A path in backticks or behind a link leads to a file of the tree."""
    text = (DEPLOY / page).read_text()
    named = re.findall(
        r"`((?:deploy/|examples/|compose/|systemd/)[\w./-]*|[\w-]+\.(?:md|json|yaml|timer|service))`", text
    )
    named += [link for link in re.findall(r"\]\(([^)]+)\)", text) if "://" not in link]
    folders = (DEPLOY, ROOT, DEPLOY / "systemd")
    assert not [name for name in named if not any((folder / name).exists() for folder in folders)]


def test_verbs_of_the_runbook_exist() -> None:
    """What it tells to type is a verb of the command."""
    typed = re.findall(r"^```sh$.*?^```$|`[^`\n]+`", OPERATIONS, re.MULTILINE | re.DOTALL)
    verbs = {verb for text in typed for verb in re.findall(r"(?:^|[`/ ])callvault ([a-z]+)", text, re.MULTILINE)}
    assert {"check", "run", "status", "health", "backfill", "init", "up"} <= verbs
    assert verbs <= set(typer.main.get_group(app).commands)


def test_the_newest_entry_of_the_changes_is_the_version_that_is_built() -> None:
    """A release without a word about it, or a word about another, is noticed here."""
    newest = re.search(r"^## (\S+) \(\d{4}-\d\d-\d\d\)$", (DEPLOY / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest
    assert newest[1] == config.VERSION


def test_decisions_are_dated_and_name_what_was_refused() -> None:
    """Each entry says when and what else was possible."""
    entries = (DEPLOY / "decisions.md").read_text().split("\n## ")[1:]
    assert len(entries) >= 9
    for entry in entries:
        assert re.match(r"\d{4}-\d\d-\d\d \w", entry)
        assert "\nRefused: " in entry, entry.splitlines()[0]


def test_the_licence_is_the_whole_apache_licence() -> None:
    """LICENSE is the text of the Apache License 2.0, to the byte, and that is what the package says."""
    digest = hashlib.sha256((ROOT / "LICENSE").read_bytes()).hexdigest()
    assert digest == "cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30"
    assert PROJECT["license"] == "Apache-2.0"
