"""What one would write in an afternoon: aiohttp reads, boto3's `put_object` writes in a pool of threads.

Called as `python -m tests.bench.script URL COUNT SIZE FIRST AT_ONCE`. It is given the list of recordings and its
sidecars ready made, verifies nothing, and does not ask whether anything is there already.
"""

import asyncio
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import aiohttp
import boto3
from botocore.config import Config

from tests.bench.server import BUCKET
from tests.bench.site import KEY, SECRET, SIDECAR, SOURCE, Work


async def _main(work: Work) -> None:
    s3 = boto3.client(
        "s3",
        endpoint_url=work.url,
        region_name="us-east-1",
        aws_access_key_id=KEY,
        aws_secret_access_key=SECRET,
        config=Config(max_pool_connections=work.at_once, s3={"addressing_style": "path"}),
    )
    waiting = iter(work.names())
    with ThreadPoolExecutor(work.at_once) as pool:
        async with aiohttp.ClientSession() as session:
            await asyncio.gather(*(_move(session, s3, pool, work, waiting) for _ in range(work.at_once)))


async def _move(
    session: aiohttp.ClientSession, s3: Any, pool: ThreadPoolExecutor, work: Work, waiting: Iterator[str]
) -> None:
    loop = asyncio.get_running_loop()
    for name in waiting:
        async with session.get(f"{work.url}/pbx/{SOURCE}/records/{name}/audio") as response:
            body = await response.read()
        for suffix, content in (("wav", body), ("json", SIDECAR)):
            key = f"script/{name}.{suffix}"
            await loop.run_in_executor(pool, partial(s3.put_object, Bucket=BUCKET, Key=key, Body=content))


if __name__ == "__main__":
    asyncio.run(_main(Work.told(sys.argv[1:])))
