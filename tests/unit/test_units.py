"""The systemd units: that systemd understands them, how tightly they hold callvault, and how they stop it."""

import re
import shutil
import subprocess
from collections import defaultdict
from pathlib import Path

import pytest
import typer

from tasks.cli.command import app
from tasks.cli.common import Exit
from tasks.supervisor import STOP_PATIENCE

FOLDER = Path(__file__).parents[2] / "deploy" / "systemd"
RESTART = "callvault-restart.service"  # runs nothing of ours
SERVICES = sorted(path.name for path in FOLDER.glob("*.service"))
OURS = [name for name in SERVICES if name != RESTART]
STAYING = [name for name in OURS if name not in ("callvault-run.service", "callvault-health.service")]
VERBS = set(typer.main.get_group(app).commands)
TOO_EXPOSED = "20"
"""Tenths of systemd's own measure, from 0 to 100; a unit without any hardening has about 96."""

needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not on this machine")


def read(name: str) -> dict[str, list[str]]:
    """Return what a unit says, by `Section.Key`; a key may stand several times."""
    found: dict[str, list[str]] = defaultdict(list)
    section = ""
    for line in (FOLDER / name).read_text().splitlines():
        if line.startswith("["):
            section = line.strip("[]")
        elif line and not line.startswith("#"):
            key, _, value = line.partition("=")
            found[f"{section}.{key}"].append(value)
    return found


def only(unit: dict[str, list[str]], key: str) -> str:
    """Return the value of a key that stands once."""
    (value,) = unit[key]
    return value


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """Return a copy of the units whose program is there."""
    for path in [*FOLDER.glob("*.service"), *FOLDER.glob("*.timer")]:
        (tmp_path / path.name).write_text(path.read_text().replace("/opt/callvault/bin/callvault", "/bin/true"))
    return tmp_path


@needs_systemd
def test_systemd_understands_the_units(installed: Path) -> None:
    """No key is misspelt, misplaced or without effect: systemd has nothing to say about them."""
    units = sorted(str(path) for path in installed.iterdir())
    told = subprocess.run(["systemd-analyze", "verify", *units], capture_output=True, text=True, check=False)
    ours = [line for line in told.stderr.splitlines() if "callvault" in line]
    assert not ours
    assert len(units) == len(SERVICES) + 2


@needs_systemd
@pytest.mark.parametrize("name", SERVICES)
def test_units_are_little_exposed(installed: Path, name: str) -> None:
    """Systemd's own measure finds next to nothing that callvault could do beyond its work."""
    told = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", f"--threshold={TOO_EXPOSED}", installed / name],
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.returncode == 0, told.stdout[-300:]


@pytest.mark.parametrize("name", OURS)
def test_units_run_as_their_own_user_and_write_to_their_own_folder(name: str) -> None:
    """Not root, no way to it, the file system read-only but for the state, and no memory both written and run."""
    unit = read(name)
    for key, value in {
        "User": "callvault",
        "StateDirectory": "callvault",
        "WorkingDirectory": "/var/lib/callvault",
        "UMask": "0077",
        "NoNewPrivileges": "yes",
        "CapabilityBoundingSet": "",
        "ProtectSystem": "strict",
        "ProtectHome": "yes",
        "PrivateTmp": "yes",
        "MemoryDenyWriteExecute": "yes",
        "RestrictAddressFamilies": "AF_INET AF_INET6 AF_UNIX",
    }.items():
        assert only(unit, f"Service.{key}") == value, key
    assert unit["Service.SystemCallFilter"] == ["@system-service", "~@privileged @resources"]
    assert "ReadWritePaths" not in " ".join(unit)
    assert "u callvault - " in (FOLDER / "callvault.sysusers").read_text()


@pytest.mark.parametrize("name", OURS)
def test_units_hand_over_configuration_and_secrets_as_credentials(name: str) -> None:
    """The command is a verb, its configuration a credential, and no secret is in the unit's environment."""
    unit = read(name)
    match = re.fullmatch(
        r"/opt/callvault/bin/callvault (\w+)(?: --worker)? --config \$\{CREDENTIALS_DIRECTORY\}/callvault\.toml",
        only(unit, "Service.ExecStart"),
    )
    assert match
    assert match[1] in VERBS
    assert {"callvault.service": "up"}.get(name, name.removesuffix(".service").rpartition("-")[2]) == match[1]
    assert unit["Service.LoadCredential"] == ["callvault.toml:/etc/callvault/callvault.toml"]
    assert unit["Service.Environment"] == ["PYTHONDONTWRITEBYTECODE=1"]
    assert "Service.EnvironmentFile" not in unit


@pytest.mark.parametrize("name", OURS)
def test_units_are_stopped_in_time_and_in_order(name: str) -> None:
    """SIGTERM goes to the main process, which needs less than the half minute after which the rest is killed."""
    unit = read(name)
    assert only(unit, "Service.KillSignal") == "SIGTERM"
    assert only(unit, "Service.KillMode") == "mixed"
    assert STOP_PATIENCE < int(only(unit, "Service.TimeoutStopSec")) == 30


@pytest.mark.parametrize("name", STAYING)
def test_services_come_back_whatever_happens_but_a_wrong_configuration(name: str) -> None:
    """A service is started again for ever, except after exit code 2, which only an edit can change."""
    unit = read(name)
    assert only(unit, "Service.Restart") == "always"
    assert only(unit, "Unit.StartLimitIntervalSec") == "0"
    assert only(unit, "Service.RestartPreventExitStatus") == "2"
    assert only(unit, "Install.WantedBy") == "multi-user.target"


def test_the_nightly_pass_may_take_as_long_as_it_takes_and_gaps_are_seen() -> None:
    """A oneshot without a time limit, for which exit codes 3 and 4 are failures, and a timer that makes up."""
    unit, timer = read("callvault-run.service"), read("callvault-run.timer")
    assert only(unit, "Service.Type") == "oneshot"
    assert only(unit, "Service.TimeoutStartSec") == "infinity"
    assert only(unit, "Service.SuccessExitStatus") == "143"
    assert not [key for key in unit if key.startswith("Install.")], "the timer starts it, not the boot"
    assert only(timer, "Timer.Persistent") == "true"
    assert only(timer, "Install.WantedBy") == "timers.target"
    assert "Timer.Unit" not in timer, "it starts the service of its own name"


def test_a_silent_worker_is_started_anew_and_one_that_may_be_well_is_not() -> None:
    """The timer asks about the worker alone; its verdict is a failure, an unput question is not, and root restarts."""
    unit, timer, restart = read("callvault-health.service"), read("callvault-health.timer"), read(RESTART)
    assert "health --worker" in only(unit, "Service.ExecStart")
    assert only(unit, "Unit.OnFailure") == RESTART
    survived = set(only(unit, "Service.SuccessExitStatus").split())
    assert survived == {"1", str(Exit.USAGE.value), "143", "SIGKILL"}
    assert str(Exit.UNUSABLE.value) not in survived
    assert only(timer, "Timer.OnUnitInactiveSec") == "2min"
    assert only(timer, "Install.WantedBy") == "timers.target"
    assert not [key for name in (unit, restart) for key in name if key.startswith("Install.")]
    assert only(restart, "Service.ExecStart") == "/usr/bin/systemctl try-restart callvault-worker.service"
    assert only(restart, "Service.CapabilityBoundingSet") == ""
    assert only(restart, "Service.RestrictAddressFamilies") == "AF_UNIX"
