"""What tasks and queues are called on the wire. Changing one strands the messages of workers not yet updated."""

POLL = "callvault.poll"
ARCHIVE = "callvault.archive"
BACKFILL = "callvault.backfill"
CANARY = "callvault.canary"
HOUSEKEEPING = "callvault.housekeeping"
TASKS = (POLL, ARCHIVE, BACKFILL, CANARY, HOUSEKEEPING)

POLL_QUEUE = "poll"
ARCHIVE_QUEUE = "archive"
DEFAULT_QUEUE = "default"
QUEUES = (DEFAULT_QUEUE, POLL_QUEUE, ARCHIVE_QUEUE)
