"""`callvault retention apply`: bring a policy that is longer now to the recordings that are in the archive."""

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from config.clock import SystemClock
from config.settings import Settings
from storage.errors import StoreError
from storage.s3.store import S3Store
from storage.state_local import LocalState
from tasks.cli.common import Config, Exit, Json, Level, LogLevel, print_json, read_settings, run_async, usage
from worker.apply import Applied, apply
from worker.checking import refuse_unlockable
from worker.runtime import make_services


def apply_verb(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Change nothing; say what would be extended.")] = False,
    config: Config = None,
    json: Json = False,
    log_level: LogLevel = Level.WARNING,
) -> None:
    """Extend locks to what today's policy says, where that is longer; nothing is ever shortened."""
    settings, _ = read_settings(config, log_level)
    if settings.retention.mode is None:
        raise usage(
            '[retention] has no mode, so that there is nothing to apply; write mode = "governance" and a default'
        )
    try:
        report = run_async(_apply(settings, dry_run=dry_run))
    except StoreError as error:
        if json:
            print_json({"dry_run": dry_run, "errors": [error.message]})
        typer.echo(error.message, err=True)
        raise typer.Exit(Exit.UNUSABLE) from error
    if json:
        print_json(_public(report))
    else:
        _show(report)
    raise typer.Exit(Exit.INCOMPLETE if report.shorter or report.refused or report.unreadable else Exit.WELL)


async def _apply(settings: Settings, *, dry_run: bool) -> Applied:
    clock = SystemClock()
    store = S3Store(settings.archive, clock)
    state = LocalState(settings.runtime.state_dir, settings.archive.namespace, clock)
    async with make_services(settings, clock, store, state) as services:
        if not dry_run:
            await refuse_unlockable(settings, store)
        return await apply(services, dry_run=dry_run)


def by_rule(counts: Mapping[str | None, int]) -> list[dict[str, Any]]:
    """Return counts by rule as `--json` prints them; the default has no name."""
    return [{"rule": rule, "recordings": counts[rule]} for rule in sorted(counts, key=lambda name: name or "")]


def rule_named(rule: str | None) -> str:
    """Return what a rule is called in a sentence."""
    return f'rule "{rule}"' if rule else "the default"


def too_short(counts: Mapping[str | None, int]) -> list[str]:
    """Return a sentence for each rule that is shorter than what was promised."""
    return [
        f"{rule_named(rule)} is shorter than what was promised for {counts[rule]} recordings: they stay as they are,"
        " for retention only grows; write as much as they were promised, or leave it for what is yet to come"
        for rule in sorted(counts, key=lambda name: name or "")
    ]


def _public(report: Applied) -> dict[str, Any]:
    return {
        "dry_run": report.dry_run,
        "recordings": report.recordings,
        "extended": by_rule(report.longer),
        "versions_extended": report.versions,
        "shorter": by_rule(report.shorter),
        "sidecars_read": report.read,
        "unreadable": report.unreadable,
        "errors": [*too_short(report.shorter), *report.refused],
    }


def _show(report: Applied) -> None:
    would = "would be extended" if report.dry_run else "extended"
    typer.echo(f"{report.recordings} recordings, {sum(report.longer.values())} {would}; {report.read} sidecars read")
    for told in by_rule(report.longer):
        typer.echo(f"  {rule_named(told['rule'])}: {told['recordings']}")
    for sentence in (*too_short(report.shorter), *report.refused):
        typer.echo(sentence, err=True)
    for key in report.unreadable:
        typer.echo(f"{key} is no sidecar that can be read: compare its versions, and put it right", err=True)
