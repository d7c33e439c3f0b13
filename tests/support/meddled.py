"""A memory store somebody meddles with: before each request, and after it, a test may do something or have it fail."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from storage.memory import MemoryStore
from storage.store import ObjectInfo, Protection, Version, Written

Meddle = Callable[[str, str], Awaitable[None]]


async def nothing(name: str, key: str) -> None:
    """Leave it alone."""


class Killed(BaseException):
    """The process is gone: nothing that follows happens, whoever would catch exceptions."""


class MeddledStore(MemoryStore):
    """`before` and `after` are told the request and its key; `said` lists all requests."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.before: Meddle = nothing
        self.after: Meddle = nothing
        self.said: list[tuple[str, str]] = []

    async def _do(self, name: str, key: str, work: Callable[[], Awaitable[Any]]) -> Any:
        self.said.append((name, key))
        await self.before(name, key)
        done = await work()
        await self.after(name, key)
        return done

    async def put(self, key: str, *args: Any, **options: Any) -> Written:  # type: ignore[override]
        write = super().put
        return await self._do("put", key, lambda: write(key, *args, **options))

    async def get(self, key: str, *, max_bytes: int) -> bytes:
        read = super().get
        return await self._do("get", key, lambda: read(key, max_bytes=max_bytes))

    async def protection(self, key: str, version_id: str | None) -> Protection:
        ask = super().protection
        return await self._do("protection", key, lambda: ask(key, version_id))

    async def delete_version(self, key: str, version_id: str | None) -> None:
        delete = super().delete_version
        await self._do("delete_version", key, lambda: delete(key, version_id))

    async def folders(self, prefix: str, *, start_after: str = "") -> list[str]:
        ask = super().folders
        return await self._do("folders", prefix, lambda: ask(prefix, start_after=start_after))

    async def objects(self, prefix: str, *, start_after: str = "") -> AsyncIterator[ObjectInfo]:
        self.said.append(("objects", prefix))
        await self.before("objects", prefix)
        async for found in super().objects(prefix, start_after=start_after):
            yield found

    async def versions(self, prefix: str) -> AsyncIterator[Version]:
        self.said.append(("versions", prefix))
        await self.before("versions", prefix)
        async for found in super().versions(prefix):
            yield found

    def all_versions(self) -> dict[str, list[str | None]]:
        """Return the ids of all versions by key."""
        return {key: [row.version_id for row in rows] for key, rows in self.versions_of.items()}


def killing(number: int, *, done: bool) -> tuple[Meddle, Meddle]:
    """Return what kills the process at its n-th request: before it is carried out, or when it is done."""
    seen = {"before": 0, "after": 0}

    def at(when: str) -> Meddle:
        async def meddle(name: str, key: str) -> None:
            seen[when] += 1
            if seen[when] >= number and done is (when == "after"):
                raise Killed

        return meddle

    return at("before"), at("after")
