"""What a poll with nothing new costs, by how much is held already: requests and memory must not grow with it.

Each poll is a process of its own, which does what the task `callvault.poll` does (or `callvault run`), so that its
memory can be told. The bucket's objects are computed by the server, spread over as many days as they take.
"""

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from config.load import load
from tests.bench.contenders import callvault
from tests.bench.measure import Stand, timed
from tests.bench.server import Source
from tests.bench.site import SOURCE, environment, write_config
from tests.bench.table import lines
from tests.support.valkey import Valkey
from worker.vendors import vendor_keys

COUNTS = (10_000, 100_000, 1_000_000)
_A_DAY = 400
_STEP = 86400 / _A_DAY
_HEAD = ("held before, days of them", "", "requests to the PBX", "to S3", "to Redis", "peak MB")
POLL = """
import os
from pathlib import Path
from storage.state_server import Server
from tasks import process
from worker.polling import poll

asked = 0

def counted(real):
    async def ask(*words):
        global asked
        asked += 1
        return await real(*words)
    return ask

Server.call, Server.run = counted(Server.call), counted(Server.run)
process.perform(lambda services: poll(services, services.settings.sources[0], lambda *_: None, lambda *_: None))
process.close()
Path(os.environ["BENCH_COUNT"]).write_text(str(asked))
"""


def held(stand: Stand, folder: Path, say: Callable[[str], None], counts: Sequence[int] = COUNTS) -> None:
    """Measure and print."""
    folder.mkdir(parents=True)
    rows = []
    with Valkey(folder / "valkey") as valkey:
        config = write_config(folder, stand.url, broker=valkey.url)
        count_file = folder / "count"
        environ = environment(CALLVAULT_CONFIG=str(config), PYTHONWARNINGS="ignore", BENCH_COUNT=str(count_file))
        namespace = load(config, vendor_keys(), environ).archive.namespace
        poll = [sys.executable, "-P", "-c", POLL]
        for count in counts:
            stand.plan({SOURCE: Source(time.time() - 600 - count * _STEP, _STEP, count, held=True)})
            for title, command, forget in (
                ("poll, Redis empty", poll, True),
                ("poll, the next one", poll, False),
                ("callvault run", callvault("run"), False),
            ):
                if forget:
                    valkey.flush()
                    valkey.nobody_in_flight(namespace)
                stand.ask("forget")
                cost = timed(stand, command, environ, folder)
                asked = stand.ask("stats")["asked"]
                of = {kind: sum(n for name, n in asked.items() if name.startswith(kind)) for kind in ("pbx", "s3")}
                told = f"{count:,}, {count // _A_DAY:,}"
                redis = count_file.read_text() if command is poll else "-"
                rows.append((told, title, str(of["pbx"]), str(of["s3"]), redis, f"{cost.peak / 1e6:.0f}"))
    say(f"a poll with nothing new; {_A_DAY} recordings a day, listed again for two days")
    lines(_HEAD, rows, say)
