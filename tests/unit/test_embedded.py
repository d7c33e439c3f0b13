"""The broker that `callvault up` brings along: private, durable, alone in its folder."""

import fcntl
import importlib.util
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import redis

from tasks.embedded import EmbeddedError, EmbeddedValkey, address, server_binary
from tests.support.waiting import wait_for

ROOT = Path(__file__).parents[2]


def client(url: str) -> redis.Redis:
    """Return a client for the URL."""
    return redis.Redis.from_url(url, decode_responses=True, protocol=2)


def test_it_serves_durably_on_loopback_with_a_password(tmp_path: Path) -> None:
    """Queued work is appended to a file, never evicted, and nobody without the password gets at it."""
    with EmbeddedValkey(tmp_path) as valkey, client(valkey.url) as asked:
        assert asked.config_get("appendonly", "maxmemory-policy", "bind", "save") == {
            "appendonly": "yes",
            "maxmemory-policy": "noeviction",
            "bind": "127.0.0.1",
            "save": "",
        }
        stranger = client(valkey.url.replace(valkey.url.split("@")[0], "redis://:guess"))
        with pytest.raises(redis.AuthenticationError), stranger:
            stranger.ping()


def test_its_files_are_for_this_user_only(tmp_path: Path) -> None:
    """The folder is closed to others, and so is each file that holds the password."""
    with EmbeddedValkey(tmp_path / "new" / "state") as valkey, client(valkey.url) as asked:
        folder = tmp_path / "new" / "state" / "valkey"
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        for name in ("valkey.conf", "url"):
            assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600
        command = Path(f"/proc/{asked.info('server')['process_id']}/cmdline").read_text()
        assert "valkey-server" in command
        assert valkey.url.split(":")[2].split("@")[0] not in command, "anybody can read a command line"


def test_data_outlive_the_server_and_the_password_does_not(tmp_path: Path) -> None:
    """A restart finds the queues as they were; each run has its own password."""
    with EmbeddedValkey(tmp_path) as valkey, client(valkey.url) as asked:
        asked.set("queue", "work")
        first = valkey.url
        assert valkey.fresh
    with EmbeddedValkey(tmp_path) as valkey, client(valkey.url) as asked:
        assert asked.get("queue") == "work"
        assert not valkey.fresh
        assert valkey.url.split("@")[0] != first.split("@")[0]


def test_others_on_the_machine_find_it_while_it_runs(tmp_path: Path) -> None:
    """`address` gives the URL of a running one, and nothing before, after, or where one was killed."""
    assert address(tmp_path) is None
    with EmbeddedValkey(tmp_path) as valkey:
        assert address(tmp_path) == valkey.url
    assert address(tmp_path) is None
    (tmp_path / "valkey" / "url").write_text("redis://of-one-that-was-killed")
    assert address(tmp_path) is None


def test_a_second_one_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    """Two servers would destroy each other's data: the second says who is in the way, and harms nothing."""
    with EmbeddedValkey(tmp_path) as valkey:
        second = EmbeddedValkey(tmp_path, lock_patience=0.01)
        with pytest.raises(EmbeddedError, match=r"another `callvault up` already uses .*state_dir of its own"):
            second.__enter__()
        assert address(tmp_path) == valkey.url


def test_a_successor_waits_for_its_predecessor_to_go(tmp_path: Path) -> None:
    """A restart by a service manager finds the old server writing its last data, and waits for it."""
    (tmp_path / "valkey").mkdir()
    held = os.open(tmp_path / "valkey" / "lock", os.O_CREAT | os.O_RDWR)
    fcntl.flock(held, fcntl.LOCK_EX)

    def predecessor_goes(_: float) -> None:
        nonlocal held
        if held:
            os.close(held)
            held = 0

    with EmbeddedValkey(tmp_path, pause=predecessor_goes) as valkey:
        assert valkey.alive()


def test_after_its_death_it_comes_back_at_the_same_address(tmp_path: Path) -> None:
    """Workers reconnect by themselves, because port and password stay while `up` runs; data stay too."""
    with EmbeddedValkey(tmp_path) as valkey:
        with client(valkey.url) as asked:
            asked.set("queue", "work")
            asked.execute_command("WAITAOF", 1, 0, 5000)
            os.kill(asked.info("server")["process_id"], signal.SIGKILL)
        wait_for(lambda: not valkey.alive(), "the server is dead")
        before = valkey.url
        valkey.start()
        assert valkey.url == before
        with client(valkey.url) as asked:
            assert asked.get("queue") == "work"


def test_a_server_that_does_not_start_is_explained(tmp_path: Path) -> None:
    """The message names the log and shows its end, and the folder is free again."""
    broken = EmbeddedValkey(tmp_path, binary=Path("/bin/false"))
    (tmp_path / "valkey").mkdir()
    broken.log_file.write_text("one\ntwo\nthree\nBad directive\n")
    with pytest.raises(EmbeddedError, match=r"does not start: see .*valkey\.log\ntwo\nthree\nBad directive"):
        broken.__enter__()
    with EmbeddedValkey(tmp_path, lock_patience=0.01) as valkey:
        assert valkey.alive()


def test_a_server_that_stays_silent_is_explained(tmp_path: Path) -> None:
    """One that runs but never answers is reported after the patience, and ended."""
    silent = tmp_path / "silent"
    silent.write_text(f"#!{sys.executable}\nimport time\ntime.sleep(600)\n")
    silent.chmod(0o700)
    valkey = EmbeddedValkey(tmp_path, binary=silent)
    (tmp_path / "valkey").mkdir()
    with pytest.raises(EmbeddedError, match="did not answer within 0 s"):
        valkey.start(0.01)
    assert valkey.alive()
    valkey.stop()
    assert not valkey.alive()


def test_a_server_that_ignores_the_request_to_stop_is_killed(tmp_path: Path) -> None:
    """Stopping takes no longer than its patience."""
    with EmbeddedValkey(tmp_path, stop_patience=0.01) as valkey, client(valkey.url) as asked:
        pid = asked.info("server")["process_id"]
        os.kill(pid, signal.SIGSTOP)
    assert not Path(f"/proc/{pid}").exists()


def test_it_does_not_outlive_a_process_that_was_killed(tmp_path: Path) -> None:
    """When `up` is killed with SIGKILL the server goes too, and the folder is free for the next."""
    script = (
        "import sys, time; from pathlib import Path; from tasks.embedded import EmbeddedValkey\n"
        "with EmbeddedValkey(Path(sys.argv[1])): time.sleep(600)"
    )
    owner = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], cwd=ROOT)
    url = wait_for(lambda: address(tmp_path), "the other process's broker answers")
    owner.kill()
    owner.wait()
    with EmbeddedValkey(tmp_path, lock_patience=30) as valkey:
        assert valkey.url != url


def test_a_machine_without_a_server_is_told_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where the package brings no server, or is missing, the way out is a broker of one's own."""
    assert server_binary().is_file()
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(EmbeddedError, match=r"no embedded broker for this machine.*\[broker\] url"):
        EmbeddedValkey(tmp_path).__enter__()


def test_a_folder_that_cannot_be_used_is_explained(tmp_path: Path) -> None:
    """A `state_dir` that is no folder is named, with the setting to change."""
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(EmbeddedError, match=r"file/valkey cannot be used \(.+\): set \[runtime\] state_dir"):
        EmbeddedValkey(tmp_path / "file").__enter__()
