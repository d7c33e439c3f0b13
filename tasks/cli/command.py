"""The `callvault` command: its verbs, put together."""

import typer

from tasks.cli.backfill import backfill
from tasks.cli.check import check
from tasks.cli.demo import demo
from tasks.cli.erase import erase
from tasks.cli.hold import hold
from tasks.cli.init import init
from tasks.cli.retention import retention
from tasks.cli.retention_apply import apply_verb
from tasks.cli.retention_audit import audit_verb
from tasks.cli.retention_expire import expire_verb
from tasks.cli.retention_plan import plan_verb
from tasks.cli.retry import retry
from tasks.cli.run import run
from tasks.cli.serve import beat, health, up, worker
from tasks.cli.status import status

app = typer.Typer(
    name="callvault",
    help="Copies finished call recordings out of phone systems into S3, with proof of what was kept.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for verb in (demo, init, check, run, up, worker, beat, backfill, retry, erase, health, status):
    app.command()(verb)
retention.command("audit")(audit_verb)
retention.command("apply")(apply_verb)
retention.command("plan")(plan_verb)
retention.command("expire")(expire_verb)
app.add_typer(retention)
app.add_typer(hold)
