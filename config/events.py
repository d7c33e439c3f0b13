"""The names of what callvault reports in its log: a closed list, so that dashboards and alerts can rely on it.

A name is static; what differs from time to time is a field. Names of what other libraries report: `library`.
"""

from enum import StrEnum


class Event(StrEnum):
    """What happened. The value is what stands in the log."""

    # the process
    WORKER_STARTED = "worker_started"
    """A worker process has read its configuration and takes work."""
    WORKER_STOPPED = "worker_stopped"
    """A worker process ends in good order."""
    SCHEDULE_STARTED = "schedule_started"
    """The scheduler runs; `entries` is how many sources it knows."""
    BROKER_UNREACHABLE = "broker_unreachable"
    """The broker or the state beside it does not answer; it is tried again."""
    BROKER_DOUBTFUL = "broker_doubtful"
    """A server of messages or state can be used, but not trusted in all: `detail` says why."""
    CHILD_STARTED = "child_started"
    """`up` started its worker, its scheduler or its broker; `child` says which."""
    CHILD_DIED = "child_died"
    """One of them ended by itself; it is started again in `again_in_seconds`."""
    WORKER_SILENT = "worker_silent"
    """No canary was consumed since `since`, although the broker answers: worker and scheduler are started anew."""
    WORKER_UNWATCHED = "worker_unwatched"
    """A worker could not enter itself in `state_dir`, so that nobody asks whether it works; `detail` says why."""
    STOPPING = "stopping"
    """`up` was told to stop, by `signal`."""

    # a source
    POLL_STARTED = "poll_started"
    """A source is being listed, from `since` to `until`."""
    POLL_FINISHED = "poll_finished"
    """A source has been listed; counts of what was found and what came of it."""
    POLL_SKIPPED = "poll_skipped"
    """Somebody else polls this source already."""
    SOURCE_STOPPED = "source_stopped"
    """Nothing more is asked of this source until somebody acts: wrong password, no rights, wrong address."""
    SOURCE_PAUSED = "source_paused"
    """The source asked to be left alone for `seconds`."""
    PERMIT_LOST = "permit_lost"
    """So many open `requests` were ended, because the state could not be told in time that they still are."""
    ROW_UNREADABLE = "row_unreadable"
    """A row of a listing could not be understood; the others were."""

    # a recording
    RECORDING_ARCHIVED = "recording_archived"
    """Media and sidecar are in the archive and agree."""
    RECORDING_PENDING = "recording_pending"
    """Not ready at the source, or a try failed and another is due."""
    RECORDING_GAP = "recording_gap"
    """It could not be archived; `reason` is in the gap record."""
    HASH_MISMATCH = "hash_mismatch"
    """The bytes are not those the vendor's hash was made of."""
    CONFLICT = "conflict"
    """The archive holds the same recording with other bytes: an incident."""
    QUARANTINED = "quarantined"
    """Bytes that failed verification were kept as evidence."""

    # the bucket
    STORE_PROBED = "store_probed"
    """What the bucket can do was tried out; `missing` is what it cannot."""
    LOCK_MISSING = "lock_missing"
    """A version was written and stands without the lock that the policy promises: an incident."""

    AUDIT_FINDING = "audit_finding"
    """An audit of locks and holds found what it may not put right, or what somebody has to know; `kind` says what."""
    AUDIT_FINISHED = "audit_finished"
    """An audit has looked at everything; its figures."""
    AUDIT_SKIPPED = "audit_skipped"
    """The week's audit is done already, or another process is at it."""

    # the end of a recording's time
    RECORDING_DESTROYED = "recording_destroyed"
    """Nothing of it is in the bucket any more; `certificate` says the rest."""
    ERASURE_ASKED = "erasure_asked"
    """Somebody asked for a recording to be erased; `outcome` is erased, deferred, refused or missing."""
    EXPIRY_FINISHED = "expiry_finished"
    """An expiry run is over, or its turn; counts of what came of it."""
    EXPIRY_STOPPED = "expiry_stopped"
    """An expiry run met what should not be there, and deletes nothing more; `detail` says what and where."""
    EXPIRY_SKIPPED = "expiry_skipped"
    """Another expiry run is under way, or today's is done."""

    HOLD_CARRIED = "hold_carried"
    """A turn of carrying a matter through the archive is over; figures, and whether it is `done`."""

    # tasks and the log itself
    TASK_UNFINISHED = "task_unfinished"
    """A task ended early for a reason that passes, such as the worker's stop; the next poll makes up for it."""
    TASK_DROPPED = "task_dropped"
    """A message asked for something that is not configured here, or not in the form it must have."""
    BATCH_FINISHED = "batch_finished"
    """A batch of recordings is settled as far as it could be; counts of what came of it."""
    CLEANED_UP = "cleaned_up"
    """What deaths left behind was taken back: unfinished uploads older than a day."""
    STORE_FAILED = "store_failed"
    """The bucket could not be used; what was under way is left for the next pass."""
    BUG = "bug"
    """Something nobody had foreseen, with its traceback; the recording is tried again."""
    LIBRARY = "library"
    """What another library reported; `message` is its text, `logger` its name."""
    LOG_FAILED = "log_failed"
    """A record could not be written as it was; its text is left out."""
