"""Makes the bucket for trying out: `bucket.py ENDPOINT BUCKET`, with versions; does nothing where it exists.

Runs once in a container of its own, which has the credentials as files. Real buckets are made by whoever owns them.
"""  # noqa: INP001 - a script of the compose file, in no package

import sys
from pathlib import Path

import boto3
from botocore.config import Config

SECRETS = Path("/run/secrets")


def main(endpoint: str, bucket: str, secrets: Path = SECRETS) -> None:
    """Make the bucket. The store may still be starting, so a connection is tried for about half a minute."""
    s3 = boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id=(secrets / "s3-access-key-id").read_text().strip(),
        aws_secret_access_key=(secrets / "s3-secret-access-key").read_text().strip(),
        config=Config(retries={"mode": "standard", "total_max_attempts": 8}, s3={"addressing_style": "path"}),
    )
    if bucket not in {found["Name"] for found in s3.list_buckets().get("Buckets", ())}:
        s3.create_bucket(Bucket=bucket)
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    sys.stdout.write(f"{endpoint}/{bucket} is there, with versions\n")


if __name__ == "__main__":
    main(*sys.argv[1:3])
