"""`callvault retention audit`: compare every version in the bucket with what promise, policy and matters say of it."""

import typer

from config.clock import SystemClock
from config.settings import Settings
from storage.errors import StoreError
from storage.s3.store import S3Store
from storage.state_local import LocalState
from tasks.cli.common import Config, Exit, Json, Level, LogLevel, print_json, read_settings, run_async
from worker.audit import audit
from worker.checking import refuse_unlockable
from worker.drift import Audited
from worker.runtime import make_services

_SHOWN = 50


def audit_verb(config: Config = None, json: Json = False, log_level: LogLevel = Level.WARNING) -> None:
    """Extend locks that are too short, set legal holds that are missing, and tell what may not be put right."""
    quiet = Level.ERROR if log_level is Level.WARNING else log_level
    settings, _ = read_settings(config, quiet)
    trouble, report = run_async(_audit(settings))
    if json:
        public = {name: value for name, value in report.figures().items() if name != "reported"}
        errors = [trouble] if trouble else []
        print_json({**public, "reported": report.reported, "findings": report.findings, "errors": errors})
    else:
        _show(report, trouble)
    raise typer.Exit(Exit.UNUSABLE if trouble else Exit.INCOMPLETE if report.reported else Exit.WELL)


async def _audit(settings: Settings) -> tuple[str, Audited]:
    clock, report = SystemClock(), Audited()
    store = S3Store(settings.archive, clock)
    state = LocalState(settings.runtime.state_dir, settings.archive.namespace, clock)
    async with make_services(settings, clock, store, state) as services:
        try:
            await refuse_unlockable(settings, store)
            await audit(services, report)
        except StoreError as error:
            return error.message, report
    return "", report


def _show(report: Audited, trouble: str) -> None:
    typer.echo(
        f"{report.objects} objects, {report.versions} versions: {report.well} as they should be, {report.extended}"
        f" locks extended, {report.held} legal holds set, {sum(report.reported.values())} findings"
    )
    for kind, count in sorted(report.reported.items()):
        typer.echo(f"  {kind}: {count}")
    for told in report.findings[:_SHOWN]:
        version = f" (version {told['version']})" if told["version"] else ""
        typer.echo(f"{told['kind']}: {told['key']}{version}: {told['detail']}", err=True)
    if sum(report.reported.values()) > _SHOWN:
        typer.echo(f"the first {_SHOWN} were told; --json names a thousand, the log has all", err=True)
    if trouble:
        typer.echo(f"not finished: {trouble}", err=True)
