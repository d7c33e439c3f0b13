"""The servers that tests are run against: found or asked for, and gone afterwards, also when they do not start."""

import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests.support import binaries
from tests.support.binaries import PACKAGES, missing, need
from tests.support.rgw import shared_rgw
from tests.support.waiting import wait_for

ROOT = Path(__file__).parents[2]
LASTS = 'case "$*" in *mkfs*) exit 0;; esac; exec sleep 600'
ASKS = """
import pathlib, sys
from tests.support.rgw import shared_rgw
with shared_rgw(pathlib.Path(sys.argv[1])) as url:
    print(url, flush=True)
    input()
"""
ANSWERS = """exec %s -m http.server --bind 127.0.0.1 $(sed -n 's/.*endpoint=127.0.0.1://p' "$2")"""


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Look for binaries in an empty folder only; return it."""
    monkeypatch.setattr(binaries, "_PATH", str(tmp_path))
    return tmp_path


def test_what_is_there_is_found(bare: Path) -> None:
    """Each binary comes with its path, and its package is not missing."""
    (bare / "radosgw").touch(0o755)
    assert need("radosgw") == {"radosgw": bare / "radosgw"}
    assert missing() == sorted(set(PACKAGES.values()) - {"radosgw"})


@pytest.mark.parametrize(("must", "ends"), [("", pytest.skip.Exception), ("1", pytest.fail.Exception)])
def test_what_is_absent_skips_or_fails(
    bare: Path, monkeypatch: pytest.MonkeyPatch, must: str, ends: type[BaseException]
) -> None:
    """The reason names the packages; on a build server it is a failure."""
    monkeypatch.setenv("TESTS_NEED_SERVERS", must)
    with pytest.raises(ends, match=r"not installed: ceph, radosgw \(apt-get install .* ceph-common radosgw\)"):
        need("ceph", "radosgw")


def test_as_a_program_it_prints_the_packages() -> None:
    """Without anything but the standard library, for a machine that has no more yet."""
    program = [sys.executable, "-I", "-S", binaries.__file__]
    told = subprocess.run(program, env={"PATH": ""}, capture_output=True, text=True, check=True)
    assert "radosgw" in told.stdout.split()


@pytest.fixture
def actors(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., None]:
    """Return a function that puts actors in place of Ceph's programs; who is told nothing ends well at once."""

    def acting(**bodies: str) -> None:
        for name in ("monmaptool", "ceph", "ceph-mon", "ceph-osd", "radosgw", "radosgw-admin"):
            path = tmp_path / name
            path.write_text(f"#!/bin/sh\n{bodies.get(name.replace('-', '_'), 'exit 0')}\n")
            path.chmod(0o755)

    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    return acting


def processes(folder: Path) -> list[psutil.Process]:
    """Return the processes whose command names the folder."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            found += [process] if str(folder) in " ".join(process.cmdline()) else []
    return found


@pytest.mark.parametrize("ends", ["monmaptool", "radosgw"])
def test_a_server_that_does_not_come_up_says_why_and_leaves_nothing(
    actors: Callable[..., None], tmp_path: Path, ends: str
) -> None:
    """The message has the end of the log of what failed; no process and no file stays, nor a lock for the next."""
    actors(**{"ceph_mon": LASTS, "ceph_osd": LASTS, ends: "echo no such luck >&2; exit 3"})
    for _ in range(2):
        with pytest.raises(AssertionError, match=r"(?s)did not come up.*no such luck"), shared_rgw(tmp_path / "rgw"):
            pytest.fail("it cannot have started")
    assert not (tmp_path / "rgw" / "cluster").exists()
    assert processes(tmp_path) == []


def test_one_server_serves_all_and_ends_with_the_last(actors: Callable[..., None], tmp_path: Path) -> None:
    """Whoever asks while it runs is told the same address; one who is killed keeps nothing running."""
    actors(ceph_mon=LASTS, ceph_osd=LASTS, radosgw=ANSWERS % sys.executable)
    folder = tmp_path / "rgw"
    asks = [sys.executable, "-c", ASKS, str(folder)]
    with subprocess.Popen(asks, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout
        url = other.stdout.readline().strip()
        with shared_rgw(folder) as same:
            other.kill()
            other.wait()
            assert same == url
            assert (folder / "cluster" / "ceph.conf").exists()
    wait_for(lambda: not processes(tmp_path), "all of it ends")
    assert sorted(path.name for path in folder.iterdir()) == ["keeper.log", "starting", "users"]
