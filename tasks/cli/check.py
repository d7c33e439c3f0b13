"""`callvault check`: can archiving work with this configuration? A line for each source, the bucket and the broker."""

import asyncio

import typer

from config.clock import SystemClock
from config.settings import Settings
from storage.s3.store import S3Store
from storage.state import StateUnavailable
from storage.state_local import LocalState
from tasks import broker
from tasks.cli.common import Config, Exit, Json, Level, LogLevel, print_json, read_settings, run_async
from tasks.fitness import ask_servers
from worker.checking import Finding, check_bucket, check_source
from worker.runtime import make_services


def check(config: Config = None, json: Json = False, log_level: LogLevel = Level.ERROR) -> None:
    """Log in to every source, list a page, try out the bucket; say what to do where one fails."""
    settings, _ = read_settings(config, log_level)
    findings = run_async(_check(settings))
    well = all(finding.ok for finding in findings)
    if json:
        checks = [{"what": f.what, "ok": f.ok, "detail": f.detail, "warnings": list(f.warnings)} for f in findings]
        print_json({"ok": well, "checks": checks})
    else:
        for finding in findings:
            typer.echo(f"{'ok    ' if finding.ok else 'FAILED'}  {finding.what}: {finding.detail}")
            for warning in finding.warnings:
                typer.echo(f"        note: {warning}")
    raise typer.Exit(Exit.WELL if well else Exit.UNUSABLE)


async def _check(settings: Settings) -> list[Finding]:
    clock = SystemClock()
    state = LocalState(settings.runtime.state_dir, settings.archive.namespace, clock)
    async with make_services(settings, clock, S3Store(settings.archive, clock), state) as services:
        return [
            *await asyncio.gather(*(check_source(services, source) for source in settings.sources)),
            await check_bucket(services),
            *([await _check_broker(settings)] if settings.broker else []),
        ]


async def _check_broker(settings: Settings) -> Finding:
    """Ask the servers of messages and state; the sentence says that `run` does without, for who needs no more."""
    what = "broker"
    try:
        told = broker.with_broker(settings)
        warnings = await ask_servers(told)
    except (broker.BrokerError, StateUnavailable) as error:
        return Finding(what, ok=False, detail=f"{error} (`callvault run` does without)")
    prefix = f"callvault:{settings.archive.namespace}:"
    return Finding(what, ok=True, detail=f"answers; keys begin with {prefix}", warnings=tuple(warnings))
