"""A whole site for tests: simulated phone systems, a bucket, a configuration file, and the command line on them."""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from click.testing import Result
from pydantic import SecretStr
from typer.testing import CliRunner

from config.settings import Archive
from storage.keys import Keys, rid, utc_date
from tasks.cli.command import app
from tests.support.s3 import eyes
from tests.support.simulator import Call, Simulator

SECRETS = ("api_key", "password", "token", "secret")


@dataclass
class Site:
    """Where a test works."""

    folder: Path
    archive: Archive
    sources: dict[str, Simulator]
    environ: dict[str, str]
    extra: dict[str, dict[str, Any]]
    """Further keys of a source, by its name."""
    broker: str | None = None
    runtime: Mapping[str, Any] | None = None
    state: str | None = None
    """Where the state lies, where the broker cannot hold it."""
    retention: str = ""
    """The `[retention]` table and its rules, as TOML."""

    @property
    def config(self) -> Path:
        return self.folder / "callvault.toml"

    def write(self) -> Path:
        """Write the configuration file; secrets go to the environment."""
        archive = {"bucket": self.archive.bucket, "endpoint_url": self.archive.endpoint_url, "region": "us-east-1"}
        lines = ["[archive]", *_keys({k: v for k, v in archive.items() if v})]
        for key in ("access_key_id", "secret_access_key"):
            value: SecretStr | None = getattr(self.archive, key)
            assert value
            lines.append(f"{key} = {self._secret(f'S3_{key}', value.get_secret_value())}")
        if self.broker:
            lines += ["[broker]", f"url = {self._secret('BROKER', self.broker)}"]
            lines += [f"state_url = {self._secret('STATE', self.state)}"] if self.state else []
        lines += ["[runtime]", *_keys({"state_dir": str(self.folder / "state"), **(self.runtime or {})})]
        for name, simulator in self.sources.items():
            lines += ["[[sources]]", *_keys({"name": name, "vendor": simulator.vendor, "url": simulator.url})]
            lines += _keys({"timezone": simulator.timezone}) if simulator.timezone else []
            lines += _keys({"requests_per_second": 1000.0, **self.extra.get(name, {})})
            for key, value in simulator.settings().items():
                secret = key in SECRETS
                lines.append(f"{key} = {self._secret(f'{name}_{key}', value)}" if secret else _keys({key: value})[0])
        lines.append(self.retention)
        self.config.write_text("\n".join(lines) + "\n")
        return self.config

    def _secret(self, name: str, value: str) -> str:
        variable = name.upper().replace("-", "_")
        self.environ[variable] = value
        return f'{{ env = "{variable}" }}'

    def callvault(self, *arguments: str, write: bool = True) -> Result:
        """Run the command line in this process."""
        if write:
            self.write()
        root = logging.getLogger()
        handlers, level = root.handlers[:], root.level
        try:
            return CliRunner().invoke(app, [*arguments, "--config", str(self.config)], env=self.environ)
        finally:
            root.handlers[:], root.level = handlers, level

    def run(self, *arguments: str) -> tuple[int, dict[str, Any]]:
        """Run `callvault run --json`; return exit code and document."""
        result = self.callvault("run", "--json", *arguments)
        assert not result.exception or isinstance(result.exception, SystemExit), result.exception
        return result.exit_code, json.loads(result.stdout)

    def listing(self) -> list[str]:
        """List the bucket."""
        pages = eyes(self.archive).get_paginator("list_objects_v2").paginate(Bucket=self.archive.bucket)
        return [found["Key"] for page in pages for found in page.get("Contents", [])]

    def read(self, key: str) -> bytes:
        body: bytes = eyes(self.archive).get_object(Bucket=self.archive.bucket, Key=key)["Body"].read()
        return body

    def sidecar(self, source: str, call: Call) -> dict[str, Any]:
        """Read a call's sidecar; fails the test where there is none."""
        key = Keys().sidecar(source, utc_date(call.started_at), rid(call.id))
        found: dict[str, Any] = json.loads(self.read(key))
        return found

    def gaps(self) -> list[dict[str, Any]]:
        return [json.loads(self.read(key)) for key in self.listing() if key.startswith("v1/gaps/")]


def _keys(pairs: Mapping[str, Any]) -> list[str]:
    return [f"{key} = {json.dumps(value)}" for key, value in pairs.items()]
