"""`callvault demo`: the main job, from nothing to a picture of what one gets, on embedded parts.

Five simulated phone systems and an S3 run in a process of their own; the real `callvault up`, with its
embedded broker, runs against them in another. This one only looks on, and leaves a folder to look into.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.live import Live
from rich.table import Table

from config.clock import SystemClock
from config.load import load
from config.settings import Settings
from storage.keys import Keys
from storage.s3.store import S3Store
from storage.sidecar import GapRecord
from tasks import launch
from tasks.cli.common import Exit, run_async
from worker.vendors import vendor_keys

_ROOT = Path(__file__).resolve().parents[2]
_SIMULATORS = _ROOT / "tests" / "support" / "serve.py"
_PATIENCE = 90.0  # seconds for one wave of calls to be archived; it takes about five
_SECRETS = ("api_key", "password", "token", "secret")
_MOST = 64 * 1024 * 1024

Folder = Annotated[Path, typer.Option("--folder", help="Where to leave what came out; replaced if it is a demo's.")]


def demo(folder: Folder = Path("demo-archive")) -> None:
    """Run five simulated phone systems, an embedded broker and an embedded S3; archive, and show what came out."""
    console = Console(highlight=False)
    if not _SIMULATORS.exists():
        typer.echo("the demo needs the simulated phone systems: run it in a checkout of callvault", err=True)
        raise typer.Exit(Exit.UNUSABLE)
    if folder.exists() and not (folder / "callvault.toml").exists():
        typer.echo(f"{folder} exists and is no folder of a demo; name another with --folder", err=True)
        raise typer.Exit(Exit.USAGE)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with _simulators() as company:
        config = _configure(folder, company.told)
        settings = load(config, vendor_keys(), os.environ)
        console.print("Five simulated phone systems and an S3 are running")
        with _up(config, folder):
            console.print("`callvault up` is running: worker, scheduler and an embedded Valkey\n")
            well = _watch(console, settings, company.told["finished"])
            if well:
                console.print("\nMore calls end at every site, and the phone systems are polled again:\n")
                finished = company.more()
                _poll_all(settings, config)
                well = _watch(console, settings, finished)
        if not well:
            console.print(f"not everything was archived in time; the log is {folder / 'callvault.log'}")
            raise typer.Exit(Exit.INCOMPLETE)
        _picture(console, settings, folder)


class Company:
    """The process of the simulated phone systems."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        self.told = self._answer()

    def more(self) -> dict[str, int]:
        """Let more calls end; return how many recordings each site has now."""
        assert self._process.stdin is not None  # noqa: S101 - opened as a pipe
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        found: dict[str, int] = self._answer()
        return found

    def _answer(self) -> Any:
        assert self._process.stdout is not None  # noqa: S101 - opened as a pipe
        return json.loads(self._process.stdout.readline())


@contextmanager
def _simulators() -> Iterator[Company]:
    environ = {**os.environ, "PYTHONPATH": str(_ROOT)}
    with subprocess.Popen(
        [sys.executable, "-P", "-m", "tests.support.serve"],
        env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        try:
            yield Company(process)
        finally:
            process.terminate()


@contextmanager
def _up(config: Path, folder: Path) -> Iterator[None]:
    with (folder / "callvault.log").open("ab") as log:
        process = subprocess.Popen(  # noqa: S603 - our own program
            [sys.executable, "-P", "-m", "tasks", "up", "--config", str(config)],
            env=launch.environment(config, os.environ), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        )  # fmt: skip
        try:
            yield
        finally:
            process.terminate()
            process.wait()


def _configure(folder: Path, told: dict[str, Any]) -> Path:
    """Write the configuration, its secrets in files, and return its path."""
    secrets = folder / "secrets"
    secrets.mkdir(mode=0o700)

    def secret(name: str, value: str) -> str:
        (secrets / name).write_text(value + "\n")
        return f'{{ file = "secrets/{name}" }}'

    lines = [
        "[archive]",
        f'bucket = "{told["bucket"]}"',
        f'endpoint_url = "{told["s3"]}"',
        'region = "us-east-1"',
        f"access_key_id = {secret('s3-key', 'demo')}",
        f"secret_access_key = {secret('s3-secret', 'demo-secret')}",
        "[runtime]",
        f'state_dir = "{(folder / "state").absolute()}"',
    ]
    for source in told["sources"]:
        lines += ["", "[[sources]]", *(f'{key} = "{source[key]}"' for key in ("name", "vendor", "url"))]
        lines += [f'timezone = "{source["timezone"]}"'] if source["timezone"] else []
        lines += ['schedule = "* * * * *"', 'settle = "1s"', "requests_per_second = 100.0"]
        for key, value in source["options"].items():
            written = secret(f"{source['name']}-{key}", value) if key in _SECRETS else f'"{value}"'
            lines.append(f"{key} = {written}")
    config = folder / "callvault.toml"
    config.write_text("\n".join(lines) + "\n")
    return config


def _poll_all(settings: Settings, config: Path) -> None:
    """Ask for a poll of every source now, as the scheduler does by its clock."""
    code = "import sys; from tasks.send import send_poll; [send_poll(name) for name in sys.argv[1:]]"
    names = [source.name for source in settings.sources]
    subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-P", "-c", code, *names], env=launch.environment(config, os.environ), check=True
    )


def _watch(console: Console, settings: Settings, expected: dict[str, int]) -> bool:
    """Show recordings arriving until all are settled; False when that takes too long."""
    ends = time.monotonic() + _PATIENCE
    with Live(console=console, auto_refresh=False, transient=True) as live:
        while True:
            counts = run_async(_count(settings))
            table = _table(settings, expected, counts)
            live.update(table, refresh=console.is_terminal)
            settled = {n: counts[n, "held"] + counts[n, "gaps"] for n in expected}
            if settled == expected or time.monotonic() > ends:
                break
            time.sleep(0.5)
    console.print(table)
    return settled == expected


async def _count(settings: Settings) -> Counter[tuple[str, str]]:
    """Count what the bucket holds, per source: held, bytes, gaps, quarantine."""
    counts: Counter[tuple[str, str]] = Counter()
    keys, store = Keys(settings.archive.prefix), S3Store(settings.archive, SystemClock())
    try:
        listed = store.objects(f"{settings.archive.prefix}v1/")
        for found, parsed in [(found, told) async for found in listed if (told := keys.parse(found.key))]:
            if parsed.kind == "recordings" and parsed.ext != "json":
                counts[parsed.source, "bytes"] += found.bytes
            else:
                counts[parsed.source, {"recordings": "held"}.get(parsed.kind, parsed.kind)] += 1
    finally:
        await store.aclose()
    return counts


def _table(settings: Settings, expected: dict[str, int], counts: Counter[tuple[str, str]]) -> Table:
    table = Table("source", "phone system", "finished", "held", "gaps", "quarantine", "MB")
    for source in settings.sources:
        name = source.name
        figures = [expected[name], *(counts[name, kind] for kind in ("held", "gaps", "quarantine"))]
        table.add_row(name, source.vendor, *map(str, figures), f"{counts[name, 'bytes'] / 1e6:.2f}")
    return table


def _picture(console: Console, settings: Settings, folder: Path) -> None:
    """Copy the bucket to the folder and show one sidecar and the gaps."""
    bucket = folder / "bucket"
    keys = run_async(_copy(settings, bucket))
    sidecar = next(key for key in keys if "/source=hq/" in key and key.endswith(".json"))
    console.print(f"\nOne sidecar, {sidecar}:\n", soft_wrap=True)
    console.print((bucket / sidecar).read_text(), markup=False, soft_wrap=True)
    for key in (key for key in keys if "/gaps/" in key):
        gap = GapRecord.model_validate_json((bucket / key).read_text())
        console.print(f"The one gap, {key}:\n", markup=False, soft_wrap=True)
        console.print(f"  {gap.source}, recording {gap.recording_id}: {gap.reason.value}", markup=False)
        console.print(f"  {gap.detail}", markup=False, soft_wrap=True)
    console.print(f"\nEverything is in {folder}: bucket/ as it was, callvault.toml, callvault.log")


async def _copy(settings: Settings, target: Path) -> list[str]:
    store = S3Store(settings.archive, SystemClock())
    keys = []
    try:
        async for found in store.objects(""):
            path = target / found.key
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(await store.get(found.key, max_bytes=_MOST))
            keys.append(found.key)
    finally:
        await store.aclose()
    return keys
