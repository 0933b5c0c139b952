"""The metrics history in the store: what each node has counted, and the sums of all of them."""

from collections.abc import Sequence

from replayforge.domain.metrics_history import MetricsHistory, Range, metrics_history
from replayforge.stores.batches import CountedAmount
from replayforge.stores.driver import Batch, Fetch, Steps

TYPES_SHOWN_MAX = 20

Amount = tuple[str, str, int]
StepAmount = tuple[int, int, str, str, int]


def write(node: str, amounts: Sequence[StepAmount]) -> Steps[None]:
    """Note the (step, begin, type, name, amount) that a node has counted by now, in place of what it wrote before."""
    rows = [
        CountedAmount(
            step_seconds=step_seconds, at_us=at_us, node=node, event_type=event_type, name=name, amount=amount
        )
        for step_seconds, at_us, event_type, name, amount in sorted(amounts)
    ]
    yield Batch("write_metrics", rows)


def own(node: str, step_seconds: int, at_us: int) -> Steps[list[Amount]]:
    """Fetch the (type, name, amount) that a node has written about one step."""
    rows = yield Fetch("own_metrics", {"step_seconds": step_seconds, "at_us": at_us, "node": node})
    return [(row[0], row[1], row[2]) for row in rows]


def read(chosen: Range, now_us: int) -> Steps[MetricsHistory]:
    """Fetch what happened within a range on all nodes together."""
    periods = chosen.periods(now_us)
    span = {"step_seconds": chosen.step_seconds, "since_us": periods[0], "until_us": periods[-1]}
    sums = yield Fetch("metrics_periods", span)
    latencies = yield Fetch("metrics_latencies", span)
    types = yield Fetch("metrics_types", {**span, "count": TYPES_SHOWN_MAX})
    names = sorted({row[0] for row in types})
    settled = yield Fetch("metrics_settled", {**span, "types": names})
    return metrics_history(
        chosen,
        now_us,
        periods=[(row[0], row[1], row[2]) for row in sums],
        latencies=[(row[0], row[1]) for row in latencies],
        types=[(row[0], row[1], row[2]) for row in types],
        settled=[(row[0], row[1], row[2]) for row in settled],
    )


def retire(step_seconds: int, before_us: int, limit: int) -> Steps[int]:
    """Remove a piece of what began before a time; returns how many amounts."""
    rows = yield Fetch("retire_metrics", {"step_seconds": step_seconds, "before_us": before_us, "count": limit})
    return len(rows)


def queued_types(count_max: int) -> Steps[dict[str, int]]:
    """Fetch how many events of each type are queued, counting no more than so many in all."""
    rows = yield Fetch("queued_types", {"count": count_max})
    return {row[0]: int(row[1]) for row in rows}
