"""The container image and the compose file: what can be held against them without a container engine.

That the compose file's broker, configuration and roles work together is `tests/integration/test_compose.py`.
"""

import re
import stat
import subprocess
import tomllib
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

import config
from config.load import VARIABLE, load
from tasks.cli.command import app
from tasks.health import _PATIENCE
from tasks.liveness import FRESH
from worker.vendors import vendor_keys

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
VERSION = config.VERSION
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
VERBS = set(typer.main.get_group(app).commands)
OURS = ("worker", "beat")

Instruction = tuple[str, str]


def stages() -> list[list[Instruction]]:
    """Return the Dockerfile's instructions, a list for each FROM."""
    text = re.sub(r"^\s*#.*\n", "", (DEPLOY / "Dockerfile").read_text(), flags=re.MULTILINE)
    found: list[list[Instruction]] = []
    for line in re.sub(r"\\\n", " ", text).splitlines():
        if line.strip():
            name, _, rest = line.partition(" ")
            if name == "FROM":
                found.append([])
            found[-1].append((name, " ".join(rest.split())))
    return found


def of(stage: list[Instruction], name: str) -> list[str]:
    """Return what all instructions of one name say."""
    return [rest for found, rest in stage if found == name]


def pins(lock: str) -> dict[str, str]:
    """Return the requirements of a lock by name: the version and all hashes, as written."""
    text = re.sub(r"\s*#.*", "", (DEPLOY / lock).read_text())
    pieces = re.split(r"\n(?=\S)", text.strip())
    return {piece.partition("==")[0]: " ".join(piece.split()) for piece in pieces}


BUILD, FINAL = stages()


def test_images_come_from_no_particular_registry() -> None:
    """Every image is named so that the engine's own default, or a mirror, serves it; and with its version."""
    images = [rest.split()[0] for stage in (BUILD, FINAL) for rest in of(stage, "FROM")]
    images += [service["image"] for service in SERVICES.values()]
    assert images
    for image in images:
        assert "." not in image.partition("/")[0] or "/" not in image, image
        assert re.fullmatch(r"[a-z/]+:[\w.-]+", image), image
        assert not image.endswith(":latest"), image
    assert {image for image in images if image.startswith("callvault")} == {f"callvault:{VERSION}"}
    assert f"motoserver/moto:{pins('requirements.lock')['moto'].split('==')[1].split()[0]}" in images


def test_the_image_installs_what_is_locked_and_nothing_else() -> None:
    """Packages are installed by hash, the code from the tree without a download; no installer is left over."""
    installs = [command for rest in of(BUILD, "RUN") for command in rest.split("&&") if "pip install" in command]
    assert len(installs) == 2
    locked, own = installs
    assert "--require-hashes -r deploy/requirements-runtime.lock" in locked
    assert "--no-deps" in own
    assert "--no-build-isolation" in own
    assert "pip uninstall --yes setuptools pip" in " ".join(of(BUILD, "RUN"))
    assert not [rest for rest in of(FINAL, "RUN") if "install " in rest and "pip" in rest]
    assert of(FINAL, "COPY") == ["--from=build /opt/callvault /opt/callvault"]


def test_the_build_sees_the_four_packages_and_no_more() -> None:
    """What is copied is what pyproject packages, and the ignore file lets in that and nothing else."""
    copied = {word for rest in of(BUILD, "COPY") for word in rest.split()[:-1]}
    packages = {name.partition(".")[0] for name in PROJECT["tool"]["setuptools"]["packages"]}
    files = {"pyproject.toml", PROJECT["project"]["readme"], *PROJECT["project"]["license-files"]}
    assert copied == packages | files | {"deploy/requirements-runtime.lock"}
    rules = [
        line for line in (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines() if line[:1] not in ("#", "")
    ]
    assert rules[0] == "*"
    assert {rule[1:].removesuffix("/**") for rule in rules[1:] if rule.startswith("!")} == copied
    assert all((ROOT / name).exists() for name in copied)


def test_the_image_runs_as_nobody_in_particular_and_needs_to_write_nothing() -> None:
    """A fixed numeric user, no bytecode, one volume, and the configuration where the documentation says."""
    assert of(FINAL, "USER") == ["10001:10001"]
    assert of(FINAL, "VOLUME") == ["/var/lib/callvault"]
    assert of(FINAL, "WORKDIR") == ["/var/lib/callvault"]
    environ = dict(pair.split("=", 1) for pair in of(FINAL, "ENV")[0].split())
    assert environ["PYTHONDONTWRITEBYTECODE"] == "1"
    assert environ[VARIABLE] == "/etc/callvault/callvault.toml"
    assert not of(FINAL, "EXPOSE")
    made = " ".join(of(FINAL, "RUN"))
    for word in ("--uid 10001", "--gid 10001", "--owner 10001", "/var/lib/callvault", "nologin"):
        assert word in made


def test_the_image_starts_stops_and_is_looked_after_as_callvault_wants() -> None:
    """Its entry is the command, its default a verb; health is asked with more patience than health itself has."""
    assert of(FINAL, "ENTRYPOINT") == ['["callvault"]']
    assert yaml.safe_load(of(FINAL, "CMD")[0])[0] in VERBS
    assert of(FINAL, "STOPSIGNAL") == ["SIGTERM"]
    (check,) = of(FINAL, "HEALTHCHECK")
    options, _, command = check.partition(" CMD ")
    assert yaml.safe_load(command) == ["callvault", "health"]
    timeout = re.search(r"--timeout=(\d+)s", options)
    assert timeout
    assert int(timeout[1]) > 2 * _PATIENCE, "starting Python takes time too"
    interval = re.search(r"--interval=(\d+)m", options)
    assert interval
    assert timedelta(minutes=int(interval[1])) < FRESH / 2, "each check calls the worker, and the next hears the answer"


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-runtime.lock"])
def test_locks_name_versions_and_hashes_and_no_index(lock: str) -> None:
    """A lock can be installed from any index, and from each the same files."""
    text = (DEPLOY / lock).read_text()
    assert "://" not in text
    options = re.findall(r"^\s*(-\S*?)(?:[:=\s]|$)", text, flags=re.MULTILINE)
    assert set(options) == {"--hash"}
    for name, pin in pins(lock).items():
        assert re.match(rf"{re.escape(name)}==\S+ (; .+ )?\\ --hash=sha256:", pin), pin[:80]


def test_the_runtime_lock_is_a_part_of_the_whole_one() -> None:
    """The image has what was tested: each pin stands identically in the lock of the tests, and no tool of theirs."""
    whole, runtime = pins("requirements.lock"), pins("requirements-runtime.lock")
    assert runtime == {name: whole.get(name) for name in runtime}
    wanted = {re.split(r"[\[<>=;]", name)[0] for name in PROJECT["project"]["dependencies"]}
    assert wanted <= set(runtime)
    assert "setuptools" in runtime, "the image builds the package with it"
    assert not {"pytest", "moto", "mypy", "ruff", "hypothesis"} & set(runtime)


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_every_service_of_the_compose_file_is_hardened(name: str) -> None:
    """No container can write to its root, gain rights, keep a capability, or run as root."""
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["tmpfs"] == ["/tmp"]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["image"].startswith("callvault") or re.fullmatch(r"[1-9]\d*:[1-9]\d*", service["user"])
    assert not {"privileged", "cap_add", "network_mode", "pid", "env_file"} & set(service)


def test_roles_of_the_compose_file_are_verbs_and_are_given_time_to_stop() -> None:
    """Worker and scheduler are started by verbs that exist, and have the half minute they need to stop."""
    for name in OURS:
        assert SERVICES[name]["command"] == [name]
        assert name in VERBS
        assert SERVICES[name]["stop_grace_period"] == "30s"
        assert "healthcheck" not in SERVICES[name], "the image's own is right"
        assert SERVICES[name]["restart"] == "unless-stopped"


def test_the_broker_of_the_compose_file_keeps_what_is_queued_and_is_not_published() -> None:
    """Append-only file on, nothing evicted, users with passwords, no port, and a network without a way out."""
    valkey = SERVICES["valkey"]
    told = dict(zip(valkey["command"][1::2], valkey["command"][2::2], strict=True))
    assert told["--appendonly"] == "yes"
    assert told["--maxmemory-policy"] == "noeviction"
    assert told["--aclfile"] == "/run/secrets/valkey-users.acl"
    assert valkey["volumes"] == ["broker:/data"]
    assert "ports" not in valkey
    assert valkey["networks"] == ["inside"]
    assert COMPOSE["networks"]["inside"] == {"internal": True}


def test_what_the_compose_file_publishes_is_for_this_machine_alone() -> None:
    """A published port is bound to the loopback."""
    for service in SERVICES.values():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))


def make_secrets(folder: Path) -> "subprocess.CompletedProcess[str]":
    """Run the script that an operator runs."""
    command = ["sh", str(DEPLOY / "compose" / "secrets.sh"), str(folder)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_secrets_are_made_once_and_for_the_containers_alone(tmp_path: Path) -> None:
    """Other people of the machine cannot reach them; a second call changes nothing; the two passwords agree."""
    folder = tmp_path / "secrets"
    assert make_secrets(folder).returncode == 0
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    before = {path.name: path.read_text() for path in folder.iterdir()}
    assert set(before) == set(COMPOSE["secrets"])
    for name, told in COMPOSE["secrets"].items():
        assert told == {"file": f"./compose/secrets/{name}"}
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o444, "the containers' users are not the operator"
    password = before["broker-url"].split(":")[2].split("@")[0]
    assert re.fullmatch("[0-9a-f]{48}", password)
    assert f">{password} " in before["valkey-users.acl"]
    assert make_secrets(folder).returncode == 0
    assert {path.name: path.read_text() for path in folder.iterdir()} == before


@pytest.mark.parametrize("lost", ["broker-url", "valkey-users.acl"])
def test_half_a_password_is_not_made_up(tmp_path: Path, lost: str) -> None:
    """With one of the two files gone, a new one would not agree with the other: nothing is written."""
    make_secrets(tmp_path)
    (tmp_path / lost).unlink()
    told = make_secrets(tmp_path)
    assert told.returncode == 1
    assert lost in told.stderr
    assert not (tmp_path / lost).exists()


def test_no_secret_is_in_the_tree() -> None:
    """The folder that the passwords are made in is ignored by git, and no service has one in its environment."""
    assert "deploy/compose/secrets/" in (ROOT / ".gitignore").read_text().splitlines()
    names = {name.lower() for service in SERVICES.values() for name in service.get("environment", {})}
    assert not [name for name in names if re.search("secret|password|token|key", name)]


def test_the_configuration_of_the_compose_file_is_right_and_its_secrets_are_mounted(tmp_path: Path) -> None:
    """It has no mistake, and each file it names is handed to the containers that read it."""
    make_secrets(tmp_path)
    text = (DEPLOY / "compose" / "callvault.toml").read_text()
    config = tmp_path / "callvault.toml"
    config.write_text(text.replace("/run/secrets", str(tmp_path)))
    settings = load(config, vendor_keys(), {})
    assert settings.broker
    assert settings.broker.url.get_secret_value().endswith("@valkey:6379/0")
    assert settings.archive.endpoint_url == "http://s3:5000"
    assert SERVICES["bucket"]["entrypoint"][2:] == [settings.archive.endpoint_url, settings.archive.bucket]
    assert settings.runtime.state_dir == Path("/var/lib/callvault")
    for name in OURS:
        assert set(re.findall(r"/run/secrets/([\w.-]+)", text)) <= set(SERVICES[name]["secrets"])
        assert SERVICES[name]["configs"] == [{"source": "callvault", "target": "/etc/callvault/callvault.toml"}]
        assert SERVICES[name]["volumes"] == ["state:/var/lib/callvault"]
    for told in COMPOSE["configs"].values():
        assert (DEPLOY / told["file"]).is_file()
