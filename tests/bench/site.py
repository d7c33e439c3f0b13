"""What all contenders are told, and the files that callvault and rclone need beside it."""

import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from tests.bench.server import BUCKET, Source, media

KEY, SECRET = "bench-key-id", "bench-secret-key"
SOURCE = "hq"
STEP = 10
_AGO = 40 * 3600  # seconds: within the two days that a poll looks back
SIDECAR = json.dumps({"a sidecar": "of the usual size", "padding": "x" * 1250}).encode()
AT_ONCE = 8
"""Recordings on their way at a time, for every contender: callvault's default for one process."""
FORWARD = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "VIRTUAL_ENV", "SYSTEMROOT")


@dataclass(frozen=True)
class Work:
    """So many recordings of one size."""

    url: str
    count: int
    size: int
    first: int
    """When the first of them started, in Unix seconds."""
    at_once: int = AT_ONCE

    @classmethod
    def of(cls, url: str, count: int, size: int) -> Self:
        """Return recordings that are due now."""
        return cls(url, count, size, int(time.time()) - _AGO)

    @classmethod
    def told(cls, words: Sequence[str]) -> Self:
        """Read what `words` wrote."""
        url, *numbers = words
        return cls(url, *map(int, numbers))

    def words(self) -> list[str]:
        """Return the arguments of a child process."""
        return [self.url, str(self.count), str(self.size), str(self.first), str(self.at_once)]

    def source(self) -> Source:
        """Return the phone system's recordings."""
        return Source(self.first, STEP, self.count, self.size)

    def names(self) -> list[str]:
        """Return the ids of all recordings."""
        source = self.source()
        return [source.name(n) for n in range(self.count)]


def environment(**more: str) -> dict[str, str]:
    """Return the environment of a child: nothing of the developer's AWS or callvault settings."""
    kept = {name: os.environ[name] for name in FORWARD if name in os.environ}
    root = str(Path(__file__).parents[2])
    return {**kept, "PYTHONPATH": root, "BENCH_KEY": KEY, "BENCH_SECRET": SECRET, "BENCH_TOKEN": "bench-token", **more}


def write_config(
    folder: Path,
    url: str,
    sources: Mapping[str, Mapping[str, Any]] | None = None,
    *,
    broker: str | None = None,
    processes: int = 2,
) -> Path:
    """Write callvault's configuration; each source may have keys of its own."""
    lines = [
        "[archive]",
        f'bucket = "{BUCKET}"',
        f'endpoint_url = "{url}"',
        'region = "us-east-1"',
        'access_key_id = { env = "BENCH_KEY" }',
        'secret_access_key = { env = "BENCH_SECRET" }',
    ]
    if broker:
        lines += ["[broker]", f'url = "{broker}"']
    lines += ["[runtime]", f'state_dir = "{folder}/state"', f"processes = {processes}"]
    for name, keys in (sources or {SOURCE: {}}).items():
        told = {
            "name": name,
            "vendor": "xivo",
            "url": f"{url}/pbx/{name}",
            "timezone": "UTC",
            "schedule": "0 0 1 1 *",
            "max_connections": AT_ONCE,
            **keys,
        }
        lines += ["[[sources]]", 'token = { env = "BENCH_TOKEN" }']
        # TOML has times of its own; they are written as they are
        lines += [f"{key} = {value if key == 'start_from' else json.dumps(value)}" for key, value in told.items()]
    config = folder / "callvault.toml"
    config.write_text("\n".join(lines) + "\n")
    return config


def write_files(folder: Path, work: Work) -> None:
    """Lay media and sidecars down as files, for rclone: two files under many names, so that the disk plays no part."""
    folder.mkdir(parents=True)
    body, sidecar = folder.with_suffix(".wav"), folder.with_suffix(".json")
    body.write_bytes(media(work.size))
    sidecar.write_bytes(SIDECAR)
    for name in work.names():
        os.link(body, folder / f"{name}.wav")
        os.link(sidecar, folder / f"{name}.json")
