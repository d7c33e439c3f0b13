"""The made-up million of `tests.bench.plan_million`, as a dozen: a plan over HTTP from listings and indexes alone."""

import asyncio
from collections import Counter
from pathlib import Path

from config.clock import SystemClock
from config.retention import LockMode, Period, Retention, Rule
from config.settings import Runtime, Settings
from storage.s3.store import S3Store
from storage.state_local import LocalState
from tests.bench.plan_million import ON, count
from tests.support.million import BUCKET, Million, Server, write_indexes
from tests.support.s3 import archive_at
from worker.plan import plan
from worker.runtime import make_services

POLICY = Retention(
    LockMode.GOVERNANCE,
    default=Period(months=84),
    rules=(Rule("trading", {"queue": "trading*"}, Period(months=120)),),
)


async def test_a_dozen_of_a_million(tmp_path: Path) -> None:
    """The figures are those of a plain count, over many pages, and no sidecar is read: there is none."""
    million = Million(("source-0", "source-1"), 3, 20)
    for source in million.sources:
        write_indexes(million, source, tmp_path)
    served = Server(million, tmp_path)
    server = await asyncio.start_server(served.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    archive, clock = archive_at(f"http://127.0.0.1:{port}", BUCKET), SystemClock()
    settings = Settings(archive=archive, runtime=Runtime(state_dir=tmp_path), retention=POLICY)
    store = S3Store(archive, clock, page_size=7)
    async with make_services(settings, clock, store, LocalState(tmp_path, "test", clock)) as services:
        planned = await plan(services, ON)
    server.close()
    await server.wait_closed()
    total = planned.total()
    figures = {"recordings": total.recordings, "deletable": total.deletable, "held": total.held}
    assert figures == sum((count(million, source) for source in million.sources), Counter())
    assert (planned.days, planned.read) == (6, 0)
    assert planned.matters == {"acme": total.held}
    assert total.held > 0
