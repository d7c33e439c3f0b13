"""Servers that come from Debian's packages: which there are, and what becomes of a test on a machine without one.

Such a test is skipped with the names of the packages, or fails where TESTS_NEED_SERVERS=1 says that it must not be
skipped, as on a build server. Called as a program, this file prints the packages that are missing: `.ci/run`
installs them with the bare Python, so only the standard library is imported at the top.
"""

import os
import shutil
import sys
from pathlib import Path

PACKAGES = {
    "ceph": "ceph-common",
    "ceph-mon": "ceph-mon",
    "ceph-osd": "ceph-osd",
    "ip": "iproute2",
    "rabbitmq-server": "rabbitmq-server",
    "radosgw": "radosgw",
    "redis-server": "redis-server",
}
"""Package by binary. Sentinel is `redis-server --sentinel`, no package of its own is needed for it."""

_MUST = "TESTS_NEED_SERVERS"  # not CALLVAULT_…, which are hidden from tests
_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])


def found(name: str) -> Path | None:
    """Return where a binary is; /usr/sbin counts even where a person's path lacks it."""
    path = shutil.which(name, path=_PATH)
    return Path(path) if path else None


def missing() -> list[str]:
    """Return the packages whose binaries are not here."""
    return sorted({package for name, package in PACKAGES.items() if found(name) is None})


def need(*names: str) -> dict[str, Path]:
    """Return the path of each binary. Where one is absent: skip the test, or fail it if TESTS_NEED_SERVERS=1."""
    import pytest  # a bare machine that asks for `missing` has none

    places = {name: found(name) for name in names}
    absent = [name for name, path in places.items() if path is None]
    if absent:
        packages = " ".join(sorted({PACKAGES[name] for name in absent}))
        reason = f"not installed: {', '.join(absent)} (apt-get install --no-install-recommends {packages})"
        (pytest.fail if os.environ.get(_MUST) == "1" else pytest.skip)(reason)
    return {name: path for name, path in places.items() if path}


if __name__ == "__main__":
    sys.stdout.write(f"{' '.join(missing())}\n")
