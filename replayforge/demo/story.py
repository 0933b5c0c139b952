"""The story of a demo as plain lines: the time of day, and what happened."""

import time
from collections.abc import Mapping
from typing import Any

import click

from replayforge.client.terminal import printable


def tell(text: str) -> None:
    """Print one line of the story at once."""
    click.echo(f"{time.strftime('%H:%M:%S')}  {printable(text)}")


def span_in_words(seconds: float) -> str:
    """Write a short span: milliseconds below one second."""
    return f"{seconds * 1000:,.0f} ms" if seconds < 1 else f"{seconds:,.1f} s"


def how_it_stands(report: Mapping[str, Any]) -> str:
    """Sum a convergence report up in one line."""
    ledger = report["ledger"]
    return (
        f"accepted {ledger['accepted']:,}, succeeded {ledger['succeeded']:,}, "
        f"dead letters {ledger['dead_lettered']:,}, waiting for a retry {report['retrying_events']:,}, "
        f"parked until a parcel is scanned {report['waiting']:,}, "
        f"open {ledger['open']:,}"
    )


def ended(report: Mapping[str, Any]) -> int:
    """Return how many events of a report have come to their end."""
    ledger = report["ledger"]
    return int(sum(ledger[name] for name in ("succeeded", "dead_lettered", "discarded", "cancelled", "retired")))
