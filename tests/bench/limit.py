"""The bare limit: read, hash, send, for each recording and a ready-made sidecar; no listing, signature, check or log.

Called as `python -m tests.bench.limit URL COUNT SIZE FIRST AT_ONCE`; what aiohttp and uvloop cannot go below.
"""

import asyncio
import hashlib
import sys
from collections.abc import AsyncIterator, Iterator

import aiohttp
import uvloop

from tests.bench.server import BUCKET
from tests.bench.site import SIDECAR, SOURCE, Work

_IN_MEMORY = 8 * 1024 * 1024


async def _main(work: Work) -> None:
    waiting = iter(work.names())
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, auto_decompress=False) as session:
        await asyncio.gather(*(_move(session, work, waiting) for _ in range(work.at_once)))


async def _move(session: aiohttp.ClientSession, work: Work, waiting: Iterator[str]) -> None:
    for name in waiting:
        digest = hashlib.sha256()

        async def hashed(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
            async for chunk in response.content.iter_any():
                digest.update(chunk)  # noqa: B023 - used up before the next turn
                yield chunk

        async with session.get(f"{work.url}/pbx/{SOURCE}/records/{name}/audio") as response:
            target = f"{work.url}/{BUCKET}/limit/{name}"
            if work.size > _IN_MEMORY:
                told = {"Content-Length": str(work.size)}
                async with session.put(f"{target}.wav", data=hashed(response), headers=told) as put:
                    await put.read()
            else:
                body = b"".join([chunk async for chunk in hashed(response)])
                async with session.put(f"{target}.wav", data=body) as put:
                    await put.read()
        digest.hexdigest()
        async with session.put(f"{target}.json", data=SIDECAR) as put:
            await put.read()


if __name__ == "__main__":
    uvloop.run(_main(Work.told(sys.argv[1:])))
