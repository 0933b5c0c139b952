"""Data directory, log and store held against each other before a start: what does not fit, and what going on costs."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from replayforge.domain.errors import Refused
from replayforge.domain.identity import event_id_for_reuse
from replayforge.domain.reports import LogCursor, Node
from replayforge.engine.dispatch.dispatcher import decoded
from replayforge.forgelog.errors import CorruptRecord, GapError, LogUnreadable
from replayforge.forgelog.log import ForgeLog, LogIdentity

STORE_REMEDY = "Bring the right store back, or start with --adopt-store to run that range again."
COURSE_REMEDY = (
    "Start the copy that ran last, and send again what only this one holds (`replayforge log dump` prints it), or start"
    " with --adopt-store to go on without that."
)
LOG_REMEDY = "Mount or bring back the right directory, or start with --adopt-store to go on without that log."


@dataclass(frozen=True, slots=True)
class StoreIdentity:
    """What each of the three knows before the log is opened.

    `identity` is what the log in `directory` says of itself, None when there is none; `remembered_log_id` is the log
    that the data directory had last. `cursors` are the logs that fed the store, and `nodes` who had them, as far as the
    store knows.
    """

    node: str
    directory: Path
    identity: LogIdentity | None
    remembered_log_id: str | None
    store_id: str
    shared: bool
    cursors: Sequence[LogCursor]
    nodes: Sequence[Node]

    @property
    def cursor(self) -> int | None:
        """Where the store stands with this log, None when it has never seen it."""
        found = [cursor for cursor in self.cursors if self.identity and cursor.log_id == self.identity.log_id]
        return found[0].log_offset if found else None

    def known_logs(self) -> list[str]:
        """Return the ids of the logs that this node is known to have, or to have had, without giving them up."""
        known = [self.remembered_log_id] if self.remembered_log_id else []
        known += [one.log_id for one in self.nodes if one.name == self.node and not one.given_up]
        if not self.shared and not known:
            known += [cursor.log_id for cursor in self.cursors]
        return list(dict.fromkeys(known))

    def log_in_words(self, log_id: str) -> str:
        """Say of a log how far it is known, and what of it is in no other place."""
        node = next((one for one in self.nodes if one.log_id == log_id), None)
        cursor = next((one for one in self.cursors if one.log_id == log_id), None)
        projected = cursor.log_offset if cursor else node.projected_offset if node else 0
        durable = max(cursor.durable_offset if cursor else 0, node.durable_offset if node else 0, projected)
        if durable > projected:
            waiting = f"at least offsets {projected + 1:,} to {durable:,} ({durable - projected:,} records)"
        else:
            waiting = "whatever it accepted later"
        return f"{log_id} (stored up to offset {projected:,}; without it are lost: {waiting})"


def check_log(found: StoreIdentity, *, adopt: bool) -> list[str]:
    """Raise Refused when the log is not the one this node had; ask before it is opened, for then one is begun.

    With `adopt` the operator accepts that, and it is returned in words.
    """
    objections = (missing_log(found), other_log(found), log_of_another_node(found))
    return accepted(objections, LOG_REMEDY, adopt=adopt)


def check_store(found: StoreIdentity, *, adopt: bool) -> list[str]:
    """Raise Refused when the store does not know what it did; ask once it is known where the log ends.

    With `adopt` the operator accepts that, and it is returned in words.
    """
    return accepted((other_store(found), older_store(found)), STORE_REMEDY, adopt=adopt)


def check_course(log: ForgeLog, newest: Sequence[tuple[int, str]], cursor: int, *, adopt: bool) -> list[str]:
    """Raise Refused when the log holds other records than the store has from it, by the (offset, id) of the newest."""
    objections = [other_course(log, offset, event_id, cursor) for offset, event_id in newest]
    return accepted([one for one in objections if one][:1], COURSE_REMEDY, adopt=adopt)


def accepted(objections: Sequence[str], remedy: str, *, adopt: bool) -> list[str]:
    """Raise Refused for the first objection, unless the operator accepts all of them; returns those there are."""
    raised = [objection for objection in objections if objection]
    if raised and not adopt:
        raise Refused(f"{raised[0]} {remedy}")
    return raised


def missing_log(found: StoreIdentity) -> str:
    """Tell whether this node has had a log that is not where a new one is about to be made."""
    known = found.known_logs() if found.identity is None else []
    if not known:
        return ""
    logs = ", ".join(found.log_in_words(log_id) for log_id in known)
    return f"There is no log in {found.directory}, but this node has log {logs}."


def other_log(found: StoreIdentity) -> str:
    """Tell whether another log lies where this node's log should be."""
    known = found.known_logs() if found.identity is not None else []
    missed = [log_id for log_id in known if found.identity and log_id != found.identity.log_id]
    if not missed or found.identity is None:
        return ""
    logs = ", ".join(found.log_in_words(log_id) for log_id in missed)
    return f"The log in {found.directory} is {found.identity.log_id}, but node {found.node} has log {logs}."


def log_of_another_node(found: StoreIdentity) -> str:
    """Tell whether this log is known to be another node's; where one process has the store, the name is no matter."""
    if found.identity is None or not found.shared:
        return ""
    owners = [one for one in found.nodes if one.log_id == found.identity.log_id and one.name != found.node]
    if not owners:
        return ""
    return (
        f"The log {found.identity.log_id} in {found.directory} is that of node {owners[0].name} (host"
        f" {owners[0].host}), but this data directory is that of node {found.node}: two daemons must not share a log."
    )


def other_store(found: StoreIdentity) -> str:
    """Tell whether the log was projected into another store than this one."""
    log = found.identity
    if log is None or log.store_id is None or log.store_id == found.store_id or not log.last_offset:
        return ""
    first, last = (found.cursor or 0) + 1, max(log.projected_offset, log.last_offset)
    unknown = f"offsets {first} to {last}" if first <= last else "whatever else that store holds"
    return (
        f"The log {log.log_id} belongs to store {log.store_id}, but this is store {found.store_id}: what became of"
        f" {unknown} is not known here."
    )


def other_course(log: ForgeLog, offset: int, event_id: str, cursor: int) -> str:
    """Tell whether a row came from another copy of the log, which went on by itself."""
    try:
        records = log.read(offset - 1, records_max=1)
    except (GapError, CorruptRecord, LogUnreadable):  # removed by retention, or not to be compared
        return ""
    event = decoded(records[0]) if records else None
    if event is not None and event_id in (event.id, event_id_for_reuse(event.id, log.log_id, offset)):
        return ""
    return (
        f"The log {log.log_id} is not the copy of it that was projected: at offset {offset} the store has event"
        f" {event_id}, and the log holds {event.id if event else 'no event'}. Two daemons ran on copies of it; what"
        f" only this one accepted, up to offset {cursor}, has no rows."
    )


def older_store(found: StoreIdentity) -> str:
    """Tell whether this store knows less than it did: it was restored from a backup, or is new."""
    log, cursor = found.identity, found.cursor or 0
    if log is None or cursor >= log.projected_offset or (log.store_id or found.store_id) != found.store_id:
        return ""
    return (
        f"The store is older than the log remembers: it knows offsets up to {cursor}, but offsets {cursor + 1} to"
        f" {log.projected_offset} were already in it. It was restored from a backup or is new."
    )
