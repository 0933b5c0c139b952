"""What a daemon reports of itself, and of its workers, to those that share its store."""

import itertools
import os
import socket
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import msgspec

from replayforge.domain.reports import Node
from replayforge.engine.dispatch.claim_buffer import ClaimBuffer
from replayforge.engine.run.worker import Worker
from replayforge.forgelog.log import ForgeLog


class WorkerReport(msgspec.Struct, frozen=True):
    """What a worker of another daemon did when that daemon reported last; `details` is what its handler had said."""

    name: str
    state: str
    event_id: str | None = None
    event_type: str | None = None
    busy_since_us: int | None = None
    settled: int = 0
    details: dict[str, Any] = {}


decode_workers = msgspec.json.Decoder(list[WorkerReport]).decode


def reporter(
    node: str,
    incarnation: str,
    log: ForgeLog,
    workers: Sequence[Worker],
    buffer: ClaimBuffer,
    started_at_us: int,
    labels: frozenset[str],
) -> Callable[[bool], Node]:
    """Return what tells how this daemon is, given whether it has stopped; any thread may ask."""

    beats = itertools.count(1)

    def report(stopped: bool) -> Node:
        told = [worker_report(worker, buffer) for worker in workers] if not stopped else []
        here = presence(node, incarnation, log, started_at_us, labels)
        return replace(here, beat=next(beats), stopped=stopped, workers=msgspec.json.encode(told).decode())

    return report


def presence(node: str, incarnation: str, log: ForgeLog, started_at_us: int, labels: frozenset[str]) -> Node:
    """Return what can be said of this daemon before it has workers."""
    return Node(
        name=node,
        log_id=log.log_id,
        incarnation=incarnation,
        host=socket.gethostname(),
        pid=os.getpid(),
        started_at_us=started_at_us,
        durable_offset=log.durable_offset,
        labels=msgspec.json.encode(sorted(labels)).decode(),
    )


def worker_report(worker: Worker, buffer: ClaimBuffer) -> WorkerReport:
    """Tell what a worker does."""
    held = buffer.running.get(worker.name)
    if held is None:
        return WorkerReport(worker.name, "idle", settled=worker.settled_count)
    event = held.event
    busy = WorkerReport(worker.name, "busy", event.id, event.event_type, worker.busy_since_us, worker.settled_count)
    return msgspec.structs.replace(busy, details=dict(worker.details))
