"""The scheduled pass without Celery: messages in a list, and a worker that carries them out when told."""

from collections import deque
from dataclasses import dataclass, field

from tests.support.bench import Bench
from worker.handover import archive_batch
from worker.outcome import Report
from worker.polling import Polled, poll


@dataclass
class Queue:
    """What was sent, and a worker that carries it out."""

    bench: Bench
    batches: deque[str] = field(default_factory=deque)
    again: list[dict[str, str]] = field(default_factory=list)
    backfills: list[tuple[str, str]] = field(default_factory=list)
    reports: list[Report | None] = field(default_factory=list)

    def send(self, source: str, batch: str) -> None:
        assert source == "hq"
        self.batches.append(batch)

    async def poll(self) -> Polled:
        return await poll(
            self.bench.services, self.bench.source, self.send, lambda _, a, b: self.backfills.append((a, b))
        )

    async def archive(self, batch: str) -> Report | None:
        report = await archive_batch(
            self.bench.services, self.bench.source, batch, self.send, lambda _, words: self.again.append(words)
        )
        self.reports.append(report)
        return report

    async def work_off(self) -> None:
        while self.batches:
            await self.archive(self.batches.popleft())
