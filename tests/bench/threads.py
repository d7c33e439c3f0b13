"""The script that most people have: requests reads, boto3's `put_object` writes, in a pool of threads.

Called as `python -m tests.bench.threads URL COUNT SIZE FIRST AT_ONCE`. As in `script`, its list and its sidecars are
ready made; each thread keeps a session of its own.
"""

import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import boto3
import requests
from botocore.config import Config

from tests.bench.server import BUCKET
from tests.bench.site import KEY, SECRET, SIDECAR, SOURCE, Work


def _main(work: Work) -> None:
    config = Config(max_pool_connections=work.at_once, s3={"addressing_style": "path"})
    keys = {"aws_access_key_id": KEY, "aws_secret_access_key": SECRET}
    s3 = boto3.client("s3", endpoint_url=work.url, region_name="us-east-1", config=config, **keys)
    own = threading.local()

    def move(name: str) -> None:
        if not hasattr(own, "session"):
            own.session = requests.Session()
        body = own.session.get(f"{work.url}/pbx/{SOURCE}/records/{name}/audio", timeout=60).content
        for suffix, content in (("wav", body), ("json", SIDECAR)):
            s3.put_object(Bucket=BUCKET, Key=f"threads/{name}.{suffix}", Body=content)

    with ThreadPoolExecutor(work.at_once) as pool:
        list(pool.map(move, work.names()))


if __name__ == "__main__":
    _main(Work.told(sys.argv[1:]))
