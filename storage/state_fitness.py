"""Which Redis or Valkey is fit for queues and state, judged by what it says of itself (INFO). Pure.

An evicting server drops queued work and leases without any error, `volatile-*` policies included: what expires by
itself is dropped early. So any policy but noeviction makes it unfit, as soon as it has a limit of memory at all.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is wrong with a server, as the rest of sentences that begin with its name."""

    unfit: tuple[str, ...] = ()
    """It must be set up in another way."""
    passing: tuple[str, ...] = ()
    """It cannot be used now; a failover may change that."""
    remarks: tuple[str, ...] = ()
    """It can be used, and somebody should know."""


def judge(told: Mapping[str, Any]) -> Verdict:
    """Return what INFO's answer, as redis-py reads it, means."""
    unfit, passing, remarks = [], [], []
    policy = told.get("maxmemory_policy")
    if policy is None:
        remarks.append("does not tell its maxmemory-policy")
    elif policy != "noeviction" and told.get("maxmemory") == 0:
        remarks.append(
            f"has no maxmemory, else its maxmemory-policy {policy} would throw queues and state away: "
            "set `maxmemory-policy noeviction` in its configuration"
        )
    elif policy != "noeviction":
        unfit.append(
            f"may throw queues and state away when memory runs short (maxmemory-policy is {policy}): "
            "set `maxmemory-policy noeviction` in its configuration"
        )
    if told.get("cluster_enabled"):
        unfit.append("is a cluster, which is not supported: use a single server, or Sentinel")
    if told.get("role") == "slave":
        passing.append("is a replica and cannot be written: give the primary's address")
    return Verdict(tuple(unfit), tuple(passing), tuple(remarks))
