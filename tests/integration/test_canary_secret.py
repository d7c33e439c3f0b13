"""A canary in every secret there is: after runs, checks, failures and tracebacks it is in nothing that was written.

Each phone system repeats what it was sent, credentials included, in every kind of answer, and some list rows that
hold them. What is searched is everything that outlives a request: output, logs at DEBUG, objects, Redis, messages,
files, command lines; the canaries are searched for in every form they may travel in.
"""

import base64
import json
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import psutil
import pytest
import redis
from pydantic import SecretStr

import tests.support.xivo
from config.redact import _forms
from tasks import launch, names
from tests.contract.vendor_site import secrets_sent
from tests.integration.conftest import MakeSite
from tests.integration.test_run import VENDORS, calls
from tests.support.s3 import eyes
from tests.support.simulator import Simulator
from tests.support.site import SECRETS, Site
from tests.support.valkey import Valkey
from tests.support.waiting import wait_for
from worker.vendors.verba import Verba

USER = "callvault-canary"


def canary(name: str) -> str:
    """Return a secret that nothing else is like, with characters that are written differently in each place."""
    return f"{name}/{secrets.token_hex(12)}+&\"'%"


@pytest.fixture
def site(make_site: MakeSite, valkey: Valkey, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """Return a site of all five vendors, every one of its secrets a canary."""
    valkey.flush()
    monkeypatch.setattr(tests.support.xivo, "TOKEN", canary("xivo-token"))
    simulators: dict[str, Simulator] = {}
    for kind in VENDORS:
        simulator = kind(calls(kind.vendor, 4))
        for key in SECRETS:
            if key in simulator.settings() and kind.vendor != "xivo":
                setattr(simulator, key, canary(f"{kind.vendor}-{key}"))
        simulators[kind.vendor] = simulator
    site = make_site(simulators)
    password = canary("broker")
    with valkey.client() as client:
        client.execute_command("ACL", "SETUSER", USER, "on", f">{password}", "~*", "&*", "+@all")
        site.broker = f"redis://{USER}:{quote(password, safe='')}@127.0.0.1:{valkey.port}/0"
        site.archive = site.archive.model_copy(update={"secret_access_key": SecretStr(canary("s3-secret"))})
        site.write()
        site.environ |= {"BROKER_CANARY": password}
        yield site
        client.execute_command("ACL", "DELUSER", USER)


def canaries(site: Site) -> dict[str, str]:
    """Return every form of every secret and session token of the site, with the name of what it is a form of."""
    found: dict[str, str] = {"broker": site.environ["BROKER_CANARY"]}
    key = site.archive.secret_access_key
    assert key
    found["s3"] = key.get_secret_value()
    for name, simulator in site.sources.items():
        found |= {f"{name} {k}": v for k, v in simulator.settings().items() if k in SECRETS}
        tokens = secrets_sent(simulator) | {seen.query.get("random", "") for seen in simulator.requests}
        found |= {f"{name} token {number}": token for number, token in enumerate(sorted(tokens)) if token}
    assert len(found) > 12, "settings and the tokens of sessions"
    forms: dict[str, str] = {}
    for name, secret in found.items():
        for form in (*_forms(secret), secret.encode().hex(), base64.b64encode(secret.encode()).decode()):
            forms[form] = f"{name} as {form}"
    return forms


def leaks(site: Site, written: str) -> list[str]:
    """Return what of the site's secrets is in a text."""
    return [name for form, name in canaries(site).items() if form in written]


def bucket(site: Site) -> str:
    """Return all keys, headers, metadata, tags and bodies of the bucket as one text."""
    s3, told = eyes(site.archive), []
    for key in site.listing():
        found = s3.get_object(Bucket=site.archive.bucket, Key=key)
        tags = s3.get_object_tagging(Bucket=site.archive.bucket, Key=key)["TagSet"]
        told += [key, repr(found["ResponseMetadata"]["HTTPHeaders"]), repr(tags)]
        told.append(found["Body"].read().decode("utf-8", "backslashreplace"))
    return "\n".join(told)


def shared(client: redis.Redis) -> str:
    """Return every key and value of Redis as one text, queues included, messages also as they were before base64."""
    read: dict[str, Any] = {
        "string": client.get,
        "hash": client.hgetall,
        "set": client.smembers,
        "list": lambda key: client.lrange(key, 0, -1),
        "zset": lambda key: client.zrange(key, 0, -1, withscores=True),
    }
    told = []
    for key in client.scan_iter("*", 1000):
        value = read.get(client.type(key), client.exists)(key)  # it may have lapsed since
        told.append(f"{key} {value!r}")
        if isinstance(value, list) and all(isinstance(message, str) for message in value):
            told += [base64.b64decode(json.loads(message)["body"]).decode() for message in value]
    return "\n".join(told)


def files(site: Site) -> str:
    """Return all files of `state_dir` but the sessions', which their owner alone may read."""
    told = []
    for path in sorted((site.folder / "state").rglob("*")):
        if path.is_file() and path.parent.name == "sessions":
            assert path.stat().st_mode & 0o077 == 0 or path.suffix == ".lock", path
        if path.is_file() and (path.parent.name != "sessions" or path.suffix == ".lock"):
            told.append(f"{path} {path.read_bytes().decode('utf-8', 'backslashreplace')}")
    return "\n".join(told)


def forget_logins(site: Site) -> None:
    """Let refused logins be tried again, as after fifteen minutes."""
    shutil.rmtree(site.folder / "state" / "sessions", ignore_errors=True)


def telling_rows(site: Site) -> None:
    """Let one more call end everywhere; some phone systems list it with what callvault logs in with."""
    fresh = {name: simulator.add(calls(name, 5)[4]) for name, simulator in site.sources.items()}
    told = {name: simulator.settings() for name, simulator in site.sources.items()}
    fresh["imagicle"].extra["detail"] = {"note": {"text": f"by {told['imagicle']['password']}"}}
    fresh["xivo"].extra["attached"] = {"auth": told["xivo"]["token"]}
    fresh["yeastar"].extra["rows"] = [{"pincode": told["yeastar"]["password"]}]


ECHOES = [("login", 200), ("login", 403), ("list", 200), ("list", 401), ("list", 500), ("detail", 200), ("media", 200)]


def test_a_run_writes_no_secret_whatever_is_repeated_to_it(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Echoed requests of every kind, redirects, a bug with its traceback, then a good run: no canary anywhere."""
    told = []
    for turn in range(2):
        forget_logins(site)
        for number, simulator in enumerate(site.sources.values()):
            simulator.faults.clear()
            purpose, status = ECHOES[(turn * 2 + number) % len(ECHOES)]
            simulator.fault("echo", purpose, status=status)
            simulator.fault("echo", "media", status=(200, 500)[turn])
        told.append(site.callvault("run", "--log-level", "debug", "--json").output)
    forget_logins(site)
    for simulator in site.sources.values():
        simulator.faults.clear()
        secret = next(v for k, v in simulator.settings().items() if k in SECRETS)
        headers = {"Location": f"http://127.0.0.1:9/{quote(secret)}?token={quote(secret)}", "X-Token": "x"}
        simulator.fault("redirect", recording=simulator.calls[1].id, headers=headers)
        simulator.fault("echo", recording=simulator.calls[2].id, status=403)

    async def bug(self: Verba, *_: object) -> None:
        held = self._fixed
        raise RuntimeError(f"{held} {self._credentials} {self._secrets}")

    with monkeypatch.context() as patch:
        patch.setattr(Verba, "open_media", bug)
        telling_rows(site)
        told.append(site.callvault("run", "--log-level", "debug").output)
    assert "RuntimeError" in told[-1]
    assert "Traceback" in told[-1]
    told += [site.callvault(verb).output for verb in ("run", "check", "status", "health")]
    assert leaks(site, "\n".join(told)) == []
    assert leaks(site, bucket(site)) == []
    assert leaks(site, files(site)) == []
    masked = [site.sidecar(name, site.sources[name].calls[4]) for name in ("imagicle", "xivo", "yeastar")]
    assert all("***" in json.dumps(sidecar["vendor_record"]) for sidecar in masked)
    assert all("repeats a credential" in " ".join(sidecar["media"]["warnings"]) for sidecar in masked)


def test_a_worker_writes_no_secret(site: Site, valkey: Valkey) -> None:
    """With Celery's own log at DEBUG too: nothing in queues before and after, in Redis, logs or command lines."""
    telling_rows(site)
    for simulator in site.sources.values():
        simulator.fault("echo", "media", recording=simulator.calls[1].id, status=500)
        simulator.fault("echo", "list", status=500, times=1)
    environ = launch.environment(site.config, os.environ) | site.environ | {"CALLVAULT_LOG_LEVEL": "debug"}
    environ |= {"PYTHONWARNINGS": "ignore"}
    log, seen = site.folder / "log", []
    options = ["--loglevel", "debug", "--concurrency", "2"]
    sender = "from tasks.app import app; import sys; [app.send_task(sys.argv[1], (s,)) for s in sys.argv[2:]]"
    subprocess.run(
        [sys.executable, "-P", "-c", sender, names.POLL, *site.sources],
        env=environ,
        cwd=site.folder,
        check=True,
        timeout=60,
    )
    with valkey.client() as client, log.open("ab") as output:
        waiting = shared(client)
        assert waiting.count(names.POLL) >= 5
        seen.append(waiting)
        worker = subprocess.Popen(
            [*launch.command("worker"), *options],
            env=environ,
            cwd=site.folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
        process = psutil.Process(worker.pid)
        try:

            def archived() -> bool:
                seen.append(shared(client))
                seen.extend(
                    " ".join(p.cmdline()) for p in [process, *process.children(recursive=True)] if p.is_running()
                )
                return sum(key.startswith("v1/recordings/") and key.endswith(".json") for key in site.listing()) >= 20

            wait_for(archived, "all but the failing ones are archived")
            wait_for(lambda: log.read_text().count('"batch_finished"') >= 5, "all batches are over")
            seen.append(shared(client))
        finally:
            worker.terminate()
            worker.wait(60)
        seen.append(shared(client))
    told = log.read_text()
    assert '"level": "debug"' in told
    assert leaks(site, told) == []
    assert leaks(site, "\n".join(seen)) == []
    assert leaks(site, bucket(site)) == []
    assert leaks(site, files(site)) == []
