"""Who is compared: callvault in one process and in two with a broker, rclone, the usual script, the bare limit.

Each moves the same recordings, eight at a time, and writes two objects for each. Where a choice had to be made for
another than callvault, it was made in that one's favour; which ones say the docstrings.
"""

import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from celery import Celery

from config.load import load
from storage.state_scripts import NOBODY_IN_FLIGHT
from tasks import names
from tasks.celery_settings import celery_settings
from tests.bench.measure import ROOT, Cost, Stand, cpu_of, peak_of, timed, tree
from tests.bench.server import BUCKET
from tests.bench.site import AT_ONCE, KEY, SECRET, SOURCE, Work, environment, write_config, write_files
from tests.support.valkey import Valkey
from worker.vendors import vendor_keys

_PATIENCE = 120.0


class Contender(Protocol):
    """One way of getting recordings into a bucket."""

    title: str

    def go(self, stand: Stand, work: Work) -> Cost:
        """Move all of it, and return what that cost."""
        ...


class Child:
    """A module of ours that is called with the work: the usual script, the bare limit."""

    def __init__(self, title: str, module: str, folder: Path) -> None:
        self.title = title
        self._module = module
        self._folder = folder

    def go(self, stand: Stand, work: Work) -> Cost:
        command = [sys.executable, "-m", self._module, *work.words()]
        return timed(stand, command, environment(), self._folder)


class Rclone:
    """`rclone copy` of files that lie there ready, media and sidecars, which spares it the phone system.

    In its favour: it does not look what is there already (`--no-traverse --no-check-dest`), not whether the bucket is
    (`--s3-no-check-bucket`), nor at what it wrote (`--s3-no-head`), computes no MD5 of large files beforehand
    (`--s3-disable-checksum`), and goes up in parts of 8 MiB, four at a time, only where callvault does. More transfers
    than eight made it slower here.
    """

    title = "rclone copy"
    _options = (
        "--no-traverse --no-check-dest --s3-no-check-bucket --s3-no-head --s3-disable-checksum --s3-upload-cutoff 8M"
        f" --s3-chunk-size 8M --s3-upload-concurrency 4 --transfers {AT_ONCE} --quiet"
    )

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def go(self, stand: Stand, work: Work) -> Cost:
        files = self._folder / f"files-{work.size}-{work.count}"
        if not files.exists():
            write_files(files, work)
        told = {
            "TYPE": "s3",
            "PROVIDER": "Other",
            "ENDPOINT": stand.url,
            "ACCESS_KEY_ID": KEY,
            "SECRET_ACCESS_KEY": SECRET,
            "REGION": "us-east-1",
        }
        environ = environment(
            RCLONE_CONFIG="", **{f"RCLONE_CONFIG_BENCH_{name}": value for name, value in told.items()}
        )
        command = ["rclone", "copy", str(files), f"bench:{BUCKET}/rclone", *self._options.split()]
        return timed(stand, command, environ, self._folder)


class Run:
    """`callvault run`: one process, nothing else."""

    title = "callvault run"

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def go(self, stand: Stand, work: Work) -> Cost:
        config = write_config(self._folder, stand.url)
        shutil.rmtree(self._folder / "state", ignore_errors=True)
        cost = timed(stand, callvault("run", "--config", str(config), "--json"), environment(), self._folder)
        check(stand, work)
        return cost


class Workers:
    """`callvault worker` with two processes, and a Valkey of its own; measured from the poll to the last sidecar.

    The processor time is that of worker, pool processes and Valkey. A context manager: the worker stays, as it does.
    """

    title = "callvault worker, 2 processes"

    def __init__(self, folder: Path, stand: Stand) -> None:
        self._valkey = Valkey(folder / "valkey")
        self._stand = stand
        self._folder = folder

    def __enter__(self) -> Self:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._valkey.start()
        config = write_config(self._folder, self._stand.url, broker=self._valkey.url)
        self.environ = environment(CALLVAULT_CONFIG=str(config), PYTHONWARNINGS="ignore")
        self.settings = load(config, vendor_keys(), self.environ)
        self._forget()
        self._client = Celery("bench", set_as_current=False)
        self._client.conf.update(celery_settings(self.settings, datetime.now(UTC)))
        with (self._folder / "words").open("wb") as out:
            self._process = subprocess.Popen(
                callvault("worker"), env=self.environ, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=out, stderr=out
            )
        # connections, probe, first use of everything
        self.go(self._stand, Work.of(self._stand.url, 200, 8000), plan=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()
        self._process.terminate()
        self._process.wait(30)
        self._valkey.stop()

    def _forget(self) -> None:
        """Forget what was archived before, as the stage does, but not the queues."""
        with self._valkey.client() as client:
            if found := list(client.scan_iter("callvault:*")):
                client.delete(*found)
            client.eval(NOBODY_IN_FLIGHT, 1, f"callvault:{self.settings.archive.namespace}:permits-since")

    def go(self, stand: Stand, work: Work, *, plan: bool = False) -> Cost:
        if plan:
            stand.plan({SOURCE: work.source()})
        self._forget()
        served, used, began = stand.ask("stats")["cpu"], self._used(), time.time()
        self._client.send_task(names.POLL, (SOURCE,))
        ends = began + _PATIENCE
        while stand.ask("stats")["sidecars"] < work.count:
            if time.time() > ends:
                words = (self._folder / "words").read_text()[-3000:]
                raise RuntimeError(f"the worker did not archive {work.count} recordings:\n{words}")
            time.sleep(0.02)
        wall = max(at for _, at in stand.ask("arrivals")["arrived"]) - began
        served = stand.ask("stats")["cpu"] - served
        pids = self._pids()
        return Cost(wall, self._used() - used, peak_of(pids), served / wall)

    def _pids(self) -> list[int]:
        return [*tree(self._process.pid), self._valkey.pid]

    def _used(self) -> float:
        return cpu_of(self._pids())


def callvault(*words: str) -> list[str]:
    """Return the command line of a verb."""
    return [sys.executable, "-P", "-m", "tasks", *words]


def check(stand: Stand, work: Work) -> None:
    """See to it that everything arrived: a fast failure would look good."""
    found = stand.ask("stats")["sidecars"]
    if found != work.count:
        raise RuntimeError(f"{found} of {work.count} recordings have a sidecar")


def everybody(folder: Path, workers: Workers | None, chosen: Sequence[str]) -> list[Contender]:
    """Return who takes part."""
    all_ = {
        "limit": Child("bare limit", "tests.bench.limit", folder),
        "rclone": Rclone(folder),
        "script": Child("aiohttp + boto3 script", "tests.bench.script", folder),
        "run": Run(folder),
    }
    found: list[Contender] = [contender for name, contender in all_.items() if name in chosen]
    return [*found, *([workers] if workers else [])]
