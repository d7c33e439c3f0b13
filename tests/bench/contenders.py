"""Who is compared: callvault in one process and in two with a broker, rclone, the usual script, the bare limit.

Each moves the same recordings, eight at a time, and writes two objects for each. Where a choice had to be made for
another than callvault, it was made in that one's favour; which ones say the docstrings.
"""

import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from celery import Celery
from redis import Redis

from config.load import load
from tasks import names
from tasks.celery_settings import celery_settings
from tests.bench.measure import ROOT, Cost, Stand, cpu_of, forget_peaks, peak_of, timed, tree
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


class Crew:
    """`callvault worker` and a Valkey of its own. A context manager: the worker stays, as it does."""

    def __init__(self, folder: Path, stand: Stand, sources: Mapping[str, Mapping[str, Any]], processes: int) -> None:
        self._valkey = Valkey(folder / "valkey")
        self._folder = folder
        self._sources = sources
        self._processes = processes
        self.stand = stand

    def __enter__(self) -> Self:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._valkey.start()
        config = write_config(
            self._folder, self.stand.url, self._sources, broker=self._valkey.url, processes=self._processes
        )
        environ = environment(CALLVAULT_CONFIG=str(config), PYTHONWARNINGS="ignore")
        self._settings = load(config, vendor_keys(), environ)
        self.forget()
        self._client = Celery("bench", set_as_current=False)
        self._client.conf.update(celery_settings(self._settings, datetime.now(UTC)))
        with (self._folder / "words").open("wb") as out:
            self._process = subprocess.Popen(
                callvault("worker"), env=environ, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=out, stderr=out
            )
        # connections, the probe of the bucket, the first use of everything, in each process
        self.stand.plan({name: Work.of(self.stand.url, 100, 8000).source() for name in self._sources})
        self.archive(100 * len(self._sources), self._sources)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()
        self._process.terminate()
        self._process.wait(60)
        self._valkey.stop()

    def forget(self, *, busy: bool = False) -> None:
        """Forget what was archived before, as the stage does, but not the queues; first let what is under way end.

        `busy`: somebody is stalling, and nobody waits for him.
        """
        with self._valkey.client() as client:
            ends = time.time() + _PATIENCE
            while not busy and time.time() < ends and (_any(client, "lease:*") or _any(client, "stash:chain:*")):
                time.sleep(0.02)
            if found := [key for key in client.scan_iter("callvault:*") if not key.endswith(":permits-since")]:
                client.delete(*found)
        self._valkey.nobody_in_flight(self._settings.archive.namespace)

    def poll(self, source: str) -> None:
        """Ask for a poll, as the scheduler does."""
        self._client.send_task(names.POLL, (source,))

    def archive(self, count: int, sources: Iterable[str]) -> Cost:
        """Poll, wait until so many sidecars are there, and return what that cost."""
        forget_peaks(self._pids())
        served, used, began = self.stand.ask("stats")["cpu"], self._used(), time.time()
        for source in sources:
            self.poll(source)
        ends = began + _PATIENCE
        while self.stand.ask("stats")["sidecars"] < count:
            if time.time() > ends:
                words = (self._folder / "words").read_text()[-3000:]
                raise RuntimeError(f"the worker did not archive {count} recordings:\n{words}")
            time.sleep(0.02)
        wall = self.stand.ask("arrivals")["arrived"][count - 1][1] - began
        served = self.stand.ask("stats")["cpu"] - served
        return Cost(wall, self._used() - used, peak_of(self._pids()), served / wall)

    def _pids(self) -> list[int]:
        return [*tree(self._process.pid), self._valkey.pid]

    def _used(self) -> float:
        return cpu_of(self._pids())


class Workers:
    """Two processes of `callvault worker`, measured from the poll to the last sidecar.

    Each has eight recordings on their way, so the source takes sixteen connections. The processor time is that of the
    worker, its two processes and Valkey.
    """

    title = "callvault worker, 2 processes"

    def __init__(self, crew: Crew) -> None:
        self._crew = crew

    def go(self, stand: Stand, work: Work) -> Cost:
        del stand  # the crew has it
        self._crew.forget()
        return self._crew.archive(work.count, [SOURCE])


def _any(client: Redis, name: str) -> bool:
    return any(client.scan_iter(f"callvault:*:{name}"))


def callvault(*words: str) -> list[str]:
    """Return the command line of a verb."""
    return [sys.executable, "-P", "-m", "tasks", *words]


def check(stand: Stand, work: Work) -> None:
    """See to it that everything arrived: a fast failure would look good."""
    found = stand.ask("stats")["sidecars"]
    if found != work.count:
        raise RuntimeError(f"{found} of {work.count} recordings have a sidecar")


def everybody(folder: Path, crew: Crew, chosen: Sequence[str]) -> list[Contender]:
    """Return who takes part."""
    all_: dict[str, Contender] = {
        "limit": Child("bare limit", "tests.bench.limit", folder),
        "rclone": Rclone(folder),
        "script": Child("aiohttp + boto3 script", "tests.bench.script", folder),
        "threads": Child("requests + boto3 script", "tests.bench.threads", folder),
        "run": Run(folder),
        "workers": Workers(crew),
    }
    return [contender for name, contender in all_.items() if name in chosen]
