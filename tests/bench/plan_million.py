"""`python -m tests.bench.plan_million`: how long `callvault retention plan` takes over a million recordings.

The bucket is made up (`tests.support.million`) and served by a process of its own, over HTTP, as a store would be. The
figures are compared with a plain count. `--days` and `--a-day` make it smaller or larger.
"""

import argparse
import asyncio
import json
import multiprocessing
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

from tests.support.million import BUCKET, Million, Server, write_indexes

ON = datetime(2031, 3, 1, tzinfo=UTC)
TRADING_YEARS = 10


def main() -> None:
    """Make the archive up, ask for the plan, compare and tell."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--days", type=int, default=1826, help="days of each source, default 1826, five years")
    parser.add_argument("--a-day", type=int, default=274, help="recordings a day of each source, default 274")
    told = parser.parse_args()
    million = Million(("source-0", "source-1"), told.days, told.a_day)
    with tempfile.TemporaryDirectory(prefix="callvault-million-") as folder:
        path = Path(folder)
        say(f"making up {million.recordings} recordings")
        with multiprocessing.Pool(2) as pool:
            pool.starmap(write_indexes, [(million, source, path) for source in million.sources])
            expected: Counter[str] = sum(pool.starmap(count, [(million, name) for name in million.sources]), Counter())
        port = multiprocessing.Value("i", 0)
        server = multiprocessing.Process(target=serve, args=(million, path, port), daemon=True)
        server.start()
        while not port.value:
            time.sleep(0.05)
        try:
            figures = ask(path, port.value)
        finally:
            server.terminate()
    found = {name: figures[name] for name in ("recordings", "deletable", "held")}
    say(f"figures: {found}; answered from {figures['answered_from']}")
    if found != dict(expected):
        sys.exit(f"a plain count has {dict(expected)}")


def say(sentence: str) -> None:
    """Say it at once."""
    sys.stdout.write(f"{sentence}\n")
    sys.stdout.flush()


def ask(folder: Path, port: int) -> dict[str, int]:
    """Run the command on a configuration, and tell what it took."""
    config = folder / "callvault.toml"
    config.write_text(CONFIG.format(bucket=BUCKET, port=port, state=folder / "state", years=TRADING_YEARS))
    command = [str(Path(sys.executable).with_name("callvault")), "retention", "plan", "--on", ON.isoformat()]
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run(
        [*command, "--json", "--config", str(config)],
        stdout=subprocess.PIPE,
        check=False,
        env={"PASSWORD": "x", "PATH": ""},
    )
    wall, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    say(f"exit code {done.returncode}; {wall:.1f} s, {cpu:.1f} s of CPU, at most {after.ru_maxrss // 1024} MiB")
    figures: dict[str, int] = json.loads(done.stdout)
    return figures


def count(million: Million, source: str) -> Counter[str]:
    """Count plainly what the plan has to find."""
    found: Counter[str] = Counter()
    for day in million.dates():
        for row in million.rows(source, day):
            call = row.entry.call
            assert call.ended_at
            assert row.entry.promised
            years = TRADING_YEARS if (call.queue or "").startswith("trading") else 7
            leap = (call.ended_at.month, call.ended_at.day) == (2, 29)
            until = max(row.entry.promised, call.ended_at.replace(year=call.ended_at.year + years, day=28))
            if not leap:
                until = max(row.entry.promised, call.ended_at.replace(year=call.ended_at.year + years))
            held = source == "source-0" and call.queue == "sales"
            found["recordings"] += 1
            found["held" if held else "deletable"] += until <= ON
    return found


def serve(million: Million, folder: Path, port: "multiprocessing.sharedctypes.Synchronized[int]") -> None:
    """Serve the bucket until the process is ended."""

    async def run() -> None:
        server = await asyncio.start_server(Server(million, folder).serve, "127.0.0.1", 0)
        port.value = server.sockets[0].getsockname()[1]
        await server.serve_forever()

    asyncio.run(run())


CONFIG = """
[archive]
bucket = "{bucket}"
endpoint_url = "http://127.0.0.1:{port}"
region = "us-east-1"
access_key_id = {{ env = "PASSWORD" }}
secret_access_key = {{ env = "PASSWORD" }}
[runtime]
state_dir = "{state}"
[retention]
mode = "governance"
default = "7y"
[[retention.rules]]
name = "trading"
match = {{ queue = "trading*" }}
keep = "{years}y"
[[retention.rules]]
name = "branch"
match = {{ source = "source-1", agent = "agent-1*" }}
keep = "6y"
[[sources]]
name = "source-0"
vendor = "imagicle"
url = "http://127.0.0.1:1"
username = "api"
password = {{ env = "PASSWORD" }}
[[sources]]
name = "source-1"
vendor = "imagicle"
url = "http://127.0.0.1:2"
username = "api"
password = {{ env = "PASSWORD" }}
"""

if __name__ == "__main__":
    main()
