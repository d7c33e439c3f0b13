"""What tasks and queues are called on the wire. Changing one strands the messages of workers not yet updated."""

POLL = "callvault.poll"
ARCHIVE = "callvault.archive"
BACKFILL = "callvault.backfill"
CANARY = "callvault.canary"
HOUSEKEEPING = "callvault.housekeeping"
ROLLCALL = "callvault.rollcall"
EXPIRE = "callvault.expire"
AUDIT = "callvault.audit"
HOLD = "callvault.hold"
HOLDS = "callvault.holds"
TASKS = (POLL, ARCHIVE, BACKFILL, CANARY, HOUSEKEEPING, ROLLCALL, EXPIRE, AUDIT, HOLD, HOLDS)

POLL_QUEUE = "poll"
ARCHIVE_QUEUE = "archive"
DEFAULT_QUEUE = "default"
QUEUES = (DEFAULT_QUEUE, POLL_QUEUE, ARCHIVE_QUEUE)
OWN_QUEUE = "worker."
"""What the name of one worker's own queue begins with; its id follows."""
