"""The figures at the top of the overview."""

from collections.abc import Sequence

from replayforge.domain.histogram import QUANTILES
from replayforge.domain.lifecycle import State
from replayforge.domain.metrics_history import Range
from replayforge.engine.report.convergence import Convergence
from replayforge.engine.report.daemon_status import WorkerStatus
from replayforge.web.pages.rows import Tile
from replayforge.web.pages.trends import Latency
from replayforge.web.pages.words import count, duration


def tiles(
    report: Convergence,
    workers: Sequence[WorkerStatus],
    rates: tuple[float, float],
    latency: Latency,
    chosen: Range,
) -> list[Tile]:
    """Return the figures in the order in which an event meets them, and how long that took within the range."""
    states = report.ledger.states
    busy = sum(worker.state == "busy" for worker in workers)
    dead, retrying = states[State.DEAD_LETTERED], states[State.RETRYING]
    shown = [
        Tile("accepted", "accepted", count(report.ledger.accepted), "/events"),
        Tile("ingested", "arriving", f"{count(rates[0])}/s", "/events"),
        Tile("done", "done", f"{count(rates[1])}/s", "/events"),
        Tile("queued", "queued", count(states[State.QUEUED]), "/events?status=queued"),
        Tile("oldest", "oldest", duration(report.oldest_queued_seconds), "/events?status=queued"),
        Tile("running", "running", f"{busy}/{len(workers)}", "/runtime#workers"),
        Tile("retrying", "retrying", count(retrying), "/events?status=retrying", "warn" if retrying else ""),
        Tile("succeeded", "succeeded", count(states[State.SUCCEEDED]), "/events?status=succeeded", "ok"),
        Tile("dead", "dead letters", count(dead), "/dead-letters", "err" if dead else ""),
    ]
    if unprojected := report.ledger.unprojected:
        shown.insert(3, Tile("unprojected", "without a row", count(unprojected), "/runtime#log"))
    if waiting := states[State.WAITING]:
        shown.insert(-2, Tile("waiting", "parked", count(waiting), "/events?status=waiting"))
    words = {mark.name: mark.words for mark in latency.marks}
    link = f"/?range={chosen.name}#latency-title"
    return shown + [Tile(name, f"{name}, {chosen.name}", words.get(name, "–"), link) for name in QUANTILES]
