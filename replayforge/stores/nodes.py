"""Who shares the store: which node has which log, and which incarnations were told to stop."""

from replayforge.domain.reports import Node
from replayforge.stores.batches import DrainingOwner
from replayforge.stores.driver import Batch, Fetch, Steps
from replayforge.stores.transactions import node_report, prefix_pattern

DRAINING_KEPT_US = 30 * 86_400 * 1_000_000


def register(report: Node, now_us: int) -> Steps[None]:
    """Note which log this node has from now on; the rows of logs that it had before stay, marked as given up."""
    yield Fetch("give_up_logs", {"node": report.name, "log_id": report.log_id})
    yield Batch("report_node", [node_report(report, now_us)])


def mark_draining(owner: str, now_us: int) -> Steps[None]:
    """Note that this incarnation was told to stop."""
    yield Batch("insert_draining", [DrainingOwner(owner=owner, since_us=now_us)])


def draining() -> Steps[set[str]]:
    """Fetch the incarnations, as owners of leases, that were told to stop."""
    rows = yield Fetch("draining")
    return {owner for (owner,) in rows}


def forget_draining(owner_prefix: str, owner: str, now_us: int) -> Steps[None]:
    """Forget the former incarnations whose names begin like this, and all that stopped long ago."""
    parameters = {"owner_pattern": prefix_pattern(owner_prefix), "owner": owner, "before_us": now_us - DRAINING_KEPT_US}
    yield Fetch("forget_draining", parameters)
