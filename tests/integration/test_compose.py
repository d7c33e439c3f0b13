"""What the compose file puts together, on this machine's loopback: its broker, its configuration, its two roles.

No container runs here. The broker gets the compose file's own options and users, callvault its own configuration
with other addresses in it.
"""

import contextlib
import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
import yaml
from redis.exceptions import NoPermissionError

from config.load import load
from tests.support.s3 import moto
from tests.support.valkey import free_port, server_binary
from tests.support.waiting import wait_for
from worker.vendors import vendor_keys

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    """Make the passwords as an operator does."""
    folder = tmp_path / "secrets"
    subprocess.run(["sh", DEPLOY / "compose" / "secrets.sh", folder], check=True, capture_output=True)
    return folder


@contextmanager
def running(command: list[str], log: Path, **options: Any) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a program until the block ends, then stop it as a container is stopped."""
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, **options)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        finally:
            process.kill()


def valkey_command(secrets: Path, folder: Path, port: int) -> list[str]:
    """Return the compose file's command for the broker, with this machine's paths."""
    told = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]["valkey"]["command"]
    assert told[0] == "valkey-server"
    here = [word.replace("/run/secrets", str(secrets)) for word in told[1:]]
    return [str(server_binary()), *here, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder)]


def make_bucket(endpoint: str, secrets: Path) -> None:
    """Run the compose file's one-shot service."""
    entrypoint = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]["bucket"]["entrypoint"]
    spec = importlib.util.spec_from_file_location("bucket", DEPLOY / "compose" / "bucket.py")
    assert spec
    assert spec.loader
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    for _ in range(2):  # `docker compose up` runs it each time
        script.main(endpoint, entrypoint[-1], secrets)


def logs(folder: Path) -> str:
    """Return what all processes said."""
    return "\n".join(log.read_text() for log in sorted(folder.glob("*.log")))


def test_worker_beat_and_broker_of_the_compose_file_are_well_together(secrets: Path, tmp_path: Path) -> None:
    """With the users, options and configuration that are shipped, `health` finds nothing wrong, and both roles stop."""
    with ExitStack() as stack:
        endpoint = stack.enter_context(moto())
        make_bucket(endpoint, secrets)
        port = free_port()
        stack.enter_context(running(valkey_command(secrets, tmp_path, port), tmp_path / "valkey.log"))
        url = (secrets / "broker-url").read_text().replace("valkey:6379", f"127.0.0.1:{port}")
        (secrets / "broker-url").chmod(0o600)
        (secrets / "broker-url").write_text(url)
        told = (DEPLOY / "compose" / "callvault.toml").read_text()
        for there, here in (
            ("http://s3:5000", endpoint),
            ("/run/secrets", str(secrets)),
            ("/var/lib/callvault", str(tmp_path / "state")),
            ("https://pbx.example.net:8088", f"http://127.0.0.1:{free_port()}"),  # nobody answers
        ):
            assert there in told
            told = told.replace(there, here)
        config = tmp_path / "callvault.toml"
        config.write_text(told)
        callvault = [sys.executable, "-P", "-m", "tasks"]
        environ = {**os.environ, "PYTHONPATH": str(ROOT), "CALLVAULT_CONFIG": str(config)}

        broker = stack.enter_context(redis.Redis.from_url(url.strip(), protocol=2, retry=None))
        namespace = load(config, vendor_keys(), {}).archive.namespace

        def answers() -> bool:
            with contextlib.suppress(redis.ConnectionError, redis.TimeoutError):
                return bool(broker.ping())
            return False

        wait_for(answers, "the broker answers")
        roles = [
            stack.enter_context(running([*callvault, role], tmp_path / f"{role}.log", env=environ))
            for role in ("worker", "beat")
        ]

        def at_work() -> bool:
            assert all(role.poll() is None for role in roles), logs(tmp_path)
            return bool(broker.exists(f"callvault:{namespace}:note:canary"))

        wait_for(at_work, "a worker takes what a scheduler sends")
        asked = subprocess.run([*callvault, "health"], env=environ, capture_output=True, text=True, check=False)
        assert asked.returncode == 0, asked.stdout + asked.stderr + logs(tmp_path)
        for forbidden in ("FLUSHALL", "CONFIG GET requirepass", "SET other:key value"):
            with pytest.raises(NoPermissionError):
                broker.execute_command(*forbidden.split())
        for role in roles:
            role.send_signal(signal.SIGTERM)
        assert [role.wait(30) for role in roles] == [0, 0]
        assert "Traceback" not in logs(tmp_path)
