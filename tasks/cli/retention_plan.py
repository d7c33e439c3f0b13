"""`callvault retention plan`: what may be deleted on a date, under the policy in force or another. Writes nothing."""

import asyncio
import os
from concurrent.futures import ProcessPoolExecutor
from datetime import datetime
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from config.clock import SystemClock
from config.load import ConfigError, load_retention
from config.logs import configure_logging
from config.retention import Retention
from config.settings import Settings
from storage.errors import StoreError
from storage.s3.store import S3Store
from storage.sidecar import utc_text
from storage.state_local import LocalState
from tasks.cli.common import Config, Exit, Json, Level, LogLevel, print_json, read_settings, run_async, usage
from tasks.cli.retention_apply import by_rule, rule_named, too_short
from tasks.cli.run import moment
from worker.plan import Figures, Place, Planned, Rule, places, plan_days
from worker.runtime import Services, make_services

_WORTH_IT = 500  # days; a process takes as long to start as a hundred do
_PROCESSES = max(1, min(4, os.cpu_count() or 1))


def plan_verb(
    on: Annotated[str, typer.Option("--on", help="The date: what may be deleted then. ISO 8601.")],
    policy: Annotated[
        Path | None, typer.Option("--policy", help="Another configuration file, whose [retention] is asked about.")
    ] = None,
    config: Config = None,
    json: Json = False,
    log_level: LogLevel = Level.WARNING,
) -> None:
    """Show per source and rule what may be deleted on a date, what matters hold, what another policy would change."""
    settings, _ = read_settings(config, log_level)
    when = moment("--on", on)
    other = _other(policy, settings) if policy else None
    try:
        planned = run_async(_plan(settings, when, other))
    except StoreError as error:
        if json:
            print_json({"on": utc_text(when), "errors": [error.message]})
        typer.echo(error.message, err=True)
        raise typer.Exit(Exit.UNUSABLE) from error
    asked = other or settings.retention
    unmatched = [rule.name for rule in asked.rules if rule.name not in planned.used]
    refused = [*too_short(planned.shorter)] if other else []
    if json:
        print_json(_public(planned, asked, unmatched, other is not None))
    else:
        _show(planned, asked, unmatched, other is not None)
    raise typer.Exit(Exit.INCOMPLETE if planned.unreadable or refused or (other and unmatched) else Exit.WELL)


def _other(policy: Path, settings: Settings) -> Retention:
    try:
        return load_retention(policy, [source.name for source in settings.sources])
    except ConfigError as error:
        raise usage(f"--policy {error}") from error


async def _plan(settings: Settings, on: datetime, policy: Retention | None) -> Planned:
    """Have each processor look at its share of the days, where there are so many that this pays."""
    async with _services(settings) as services:
        found = await places(services)
        shares = [found[n::_PROCESSES] for n in range(_PROCESSES)] if len(found) >= _WORTH_IT else [found]
        if len(shares) == 1:
            return await plan_days(services, on, policy, found)
    loop, planned = asyncio.get_running_loop(), Planned(on)
    with ProcessPoolExecutor(len(shares), mp_context=get_context("spawn")) as pool:
        parts = [loop.run_in_executor(pool, plan_share, settings, on, policy, share) for share in shares]
        for part in await asyncio.gather(*parts):
            planned.add(part)
    return planned


def plan_share(settings: Settings, on: datetime, policy: Retention | None, share: list[Place]) -> Planned:
    """Plan some days, in a process of its own. StoreError."""
    configure_logging(json=True, level=Level.ERROR, secrets=settings.secrets())

    async def work() -> Planned:
        async with _services(settings) as services:
            return await plan_days(services, on, policy, share)

    return asyncio.run(work())


def _services(settings: Settings) -> Services:
    clock = SystemClock()
    state = LocalState(settings.runtime.state_dir, settings.archive.namespace, clock)
    return make_services(settings, clock, S3Store(settings.archive, clock), state)


def _public(planned: Planned, asked: Retention, unmatched: list[str], changed: bool) -> dict[str, Any]:
    sources = {
        source: {
            **planned.of(source).public(),
            **({"deletable_before": planned.before[source]} if changed else {}),
            "rules": [{**_rule(rule), **rules[rule].public()} for rule in _in_order(rules)],
        }
        for source, rules in sorted(planned.rules.items())
    }
    return {
        "on": utc_text(planned.on),
        "policy": asked.version,
        **planned.total().public(),
        **({"deletable_before": planned.before.total()} if changed else {}),
        "sources": sources,
        "matters": dict(sorted(planned.matters.items())),
        "longer": by_rule(planned.longer),
        "shorter": by_rule(planned.shorter),
        "rules_without_recordings": unmatched,
        "unreadable": planned.unreadable,
        "answered_from": {"days": planned.days, "sidecars_read": planned.read},
        "errors": [*_unmatched(unmatched), *(too_short(planned.shorter) if changed else [])],
    }


def _in_order(rules: dict[Rule | None, Figures]) -> list[Rule | None]:
    return sorted(rules, key=lambda rule: (rule is None, rule[0] if rule else False, rule[1] or "" if rule else ""))


def _rule(rule: Rule | None) -> dict[str, Any]:
    """Return what keeps: a rule's name, null for the default; a lock that is longer; or nothing that has an end."""
    if rule is None:
        return {"rule": None, "kept_by": "nothing_promised"}
    return {"rule": rule[1], "kept_by": "lock" if rule[0] else "rule" if rule[1] else "default"}


def _unmatched(names: list[str]) -> list[str]:
    return [f'rule "{name}" matches nothing in the archive: correct its match, or take it out' for name in names]


def _show(planned: Planned, asked: Retention, unmatched: list[str], changed: bool) -> None:
    table = Table("source", "kept by", "recordings", "deletable", "bytes", "held")
    for source, rules in sorted(planned.rules.items()):
        for rule in _in_order(rules):
            told = rules[rule]
            numbers = (told.recordings, told.deletable, told.bytes, told.held)
            table.add_row(source, escape(_kept_by(rule)), *map(str, numbers))
    total = planned.total()
    table.add_row("all", "", *map(str, (total.recordings, total.deletable, total.bytes, total.held)))
    which = "the policy asked about" if changed else "the policy in force"
    typer.echo(f"on {utc_text(planned.on)}, by {which} (version {asked.version}):")
    Console().print(table)
    if changed:
        typer.echo(f"deletable then by the policy in force: {planned.before.total()}")
    for name, count in sorted(planned.matters.items()):
        typer.echo(f"matter {name} holds {count} of those whose time is over then")
    for row in by_rule(planned.longer):
        typer.echo(f"{rule_named(row['rule'])}: `retention apply` would keep {row['recordings']} recordings longer")
    for sentence in (*too_short(planned.shorter), *_unmatched(unmatched)):
        typer.echo(sentence, err=True)
    for key in planned.unreadable:
        typer.echo(f"{key} is no sidecar that can be read, and in no figure: compare its versions", err=True)
    typer.echo(
        f"answered from the listing and the index of {planned.days} days; {planned.read} sidecars had to be read"
        + ("; `callvault retention audit` indexes them" if planned.read else "")
    )


def _kept_by(rule: Rule | None) -> str:
    if rule is None:
        return "nothing promised: without end"
    return "a longer lock" if rule[0] else rule[1] or "default"
