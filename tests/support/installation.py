"""An installation of real processes: workers and schedulers, its configuration, and a bucket that says no."""

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psutil

from config.clock import SystemClock
from config.load import load
from config.settings import Settings
from storage.state_redis import RedisState
from tasks import launch
from tasks.liveness import last_song
from tests.support.valkey import Valkey
from worker.vendors import vendor_keys

CONFIG = """
[archive]
bucket = "acme-calls"
endpoint_url = "{refusing}"
region = "eu-west-1"
access_key_id = {{ env = "HUSH" }}
secret_access_key = {{ env = "HUSH" }}
{broker}
[runtime]
state_dir = "{folder}/state"
processes = 2
[[sources]]
name = "hq"
vendor = "xivo"
url = "{refusing}"
timezone = "Europe/Paris"
token = {{ env = "HUSH" }}
"""


class Installation:
    """One installation: its configuration, its processes, and a client of its own for looking and sending."""

    def __init__(self, folder: Path, refusing: str, valkey: Valkey | None) -> None:
        self.folder = folder
        self.config = folder / "callvault.toml"
        broker = '[broker]\nurl = { env = "BROKER" }' if valkey else ""
        self.config.write_text(CONFIG.format(broker=broker, folder=folder, refusing=refusing))
        self.environ = launch.environment(self.config, os.environ) | {
            "HUSH": "hush-hush-hush",
            "PYTHONWARNINGS": "ignore",
        }
        if valkey:
            self.environ["BROKER"] = valkey.url
        self.processes: list[subprocess.Popen[bytes]] = []
        self.log = folder / "log"

    @property
    def settings(self) -> Settings:
        return load(self.config, vendor_keys(), self.environ)

    @property
    def namespace(self) -> str:
        return self.settings.archive.namespace

    def start(self, *command: str) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-P", *command], cwd=self.folder, env=self.environ, stdin=subprocess.DEVNULL,
                stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        self.processes.append(process)
        return process

    def end(self) -> None:
        for process in self.processes:
            for child in psutil.Process(process.pid).children(recursive=True) if process.poll() is None else ():
                child.kill()
            process.kill()
            process.wait()

    def logged(self, text: str) -> Callable[[], bool]:
        return lambda: text in self.log.read_text()

    def diary(self, word: str) -> list[str]:
        """Return the ids of the processes in which the lingering task wrote this word."""
        try:
            lines = (self.folder / "diary").read_text().split("\n")
        except FileNotFoundError:
            return []
        return [line.split()[1] for line in lines if line.startswith(f"{word} ")]


def sung(url: str, namespace: str) -> bool:
    """Tell whether a canary has left its note."""

    async def ask() -> bool:
        state = RedisState(url, namespace, SystemClock())
        try:
            return await last_song(state) is not None
        finally:
            await state.aclose()

    return asyncio.run(ask())


@contextmanager
def saying_no() -> Iterator[str]:
    """Serve bucket and phone system of an installation: both refuse at once, so that no task takes long by accident."""

    class No(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(403)

        do_HEAD = do_POST = do_PUT = do_DELETE = do_GET  # noqa: N815 - http.server calls them so

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), No) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()
