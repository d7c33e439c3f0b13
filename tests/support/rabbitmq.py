"""A private node of Debian's RabbitMQ for tests: ports, data, log and cookie of its own, in one folder.

Neither the machine's own node nor its port mapper (epmd) is touched; works as any user, root included, and offline.
"""

import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.binaries import need
from tests.support.redis_like import free_port
from tests.support.waiting import wait_for

_SERVER = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
"""What Debian's /usr/sbin/rabbitmq-server calls after it has become the user rabbitmq, which this one need not be."""
_PATIENCE = 100.0  # seconds; a start takes about 5
_LAST_WORDS = 2000


class RabbitMQ:
    """A context manager; its data survive `stop` and `start`. `url` is that of the user guest."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.port = free_port()
        self._distribution_port = free_port()
        self._mapper_port = free_port()
        self._mapper: subprocess.Popen[bytes] | None = None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self.port}//"

    def start(self) -> None:
        """Start and wait until it speaks AMQP."""
        command = _SERVER if _SERVER.exists() else need("rabbitmq-server")["rabbitmq-server"]
        with (self._folder / "output").open("ab") as output:
            self._process = subprocess.Popen(
                [str(command)],
                cwd=self._folder,
                env=self._environ(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # a shell that starts the virtual machine: they end together
            )
        wait_for(self._answers, "RabbitMQ speaks AMQP", _PATIENCE)

    def stop(self) -> None:
        """End it in an orderly way."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it as a crash would."""
        self._end(signal.SIGKILL)

    def __enter__(self) -> Self:
        need("rabbitmq-server")
        self._folder.mkdir(parents=True, exist_ok=True)
        (self._folder / "plugins").write_text("[].\n")
        (self._folder / "rabbitmq.conf").write_text("log.console = true\nlog.console.level = warning\n")
        mapper = shutil.which("epmd", path=f"{os.environ['PATH']}:/usr/bin")
        assert mapper, "epmd comes with every Erlang"
        command = [mapper, "-port", str(self._mapper_port), "-address", "127.0.0.1"]
        self._mapper = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            wait_for(lambda: _open(self._mapper_port), "epmd listens")
            self.start()
        except BaseException:
            self._leave()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()

    def _leave(self) -> None:
        self.kill()
        mapper, self._mapper = self._mapper, None
        if mapper:
            mapper.kill()
            mapper.wait()

    def _environ(self) -> dict[str, str]:
        folder = str(self._folder)
        return {
            "PATH": os.environ["PATH"],
            "HOME": folder,  # where the cookie is made
            "LANG": "C.UTF-8",
            "RABBITMQ_NODENAME": f"callvault-test-{self.port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(self._distribution_port),
            "ERL_EPMD_PORT": str(self._mapper_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_BASE": folder,
            "RABBITMQ_MNESIA_BASE": f"{folder}/mnesia",
            "RABBITMQ_LOG_BASE": f"{folder}/log",
            "RABBITMQ_CONFIG_FILE": f"{folder}/rabbitmq.conf",
            "RABBITMQ_CONF_ENV_FILE": f"{folder}/none",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{folder}/plugins",
            "RABBITMQ_PID_FILE": f"{folder}/pid",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
        }

    def _answers(self) -> bool:
        assert self._process is not None
        words = (self._folder / "output").read_text(errors="replace")
        assert self._process.poll() is None, f"RabbitMQ did not start:\n{words[-_LAST_WORDS:]}"
        return _open(self.port, b"AMQP\x00\x00\x09\x01")

    def _end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        try:
            os.killpg(process.pid, number)
            process.wait(_PATIENCE)
        except ProcessLookupError:
            process.wait()
        while _open(self.port):  # the shell may go before the machine it started
            time.sleep(0.02)


def _open(port: int, greeting: bytes = b"") -> bool:
    """Tell whether somebody listens and, where a greeting is given, answers it."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
            if greeting:
                connection.sendall(greeting)
                return bool(connection.recv(1))
            return True
    except OSError:
        return False
