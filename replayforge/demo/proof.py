"""What must add up at the end of a demo or of chaos: what was acknowledged, the live ledger, the offline check."""

import asyncio
from collections.abc import Iterator, Mapping

from replayforge.client.bulk import Tally
from replayforge.config import Config
from replayforge.engine.report.audit import Findings
from replayforge.offline_check import check_offline

ENDED = ("succeeded", "dead_lettered", "discarded", "cancelled", "retired")


def objections_to_ledger(
    ledger: Mapping[str, int], accepted_before: int, tally: Tally, *, parked: int = 0
) -> Iterator[str]:
    """Yield what does not add up between what the sender was told and what the daemon's ledger says.

    `parked` are events that may be open, since what they wait for was not sent.
    """
    ended = sum(ledger[name] for name in ENDED)
    if ledger["accepted"] != ended + ledger["open"] or ledger["open"] > parked:
        yield f"accepted {ledger['accepted']:,}, but only {ended:,} have ended and {ledger['open']:,} are open"
    if ledger["lost"]:
        yield f"{ledger['lost']:,} acknowledged events are lost"
    grown = ledger["accepted"] - accepted_before
    if not tally.accepted <= grown <= tally.accepted + tally.duplicates:
        yield f"the daemon accepted {grown:,} events, the sender knows of {tally.accepted + tally.duplicates:,}"


def objections_to_check(config: Config, ledger: Mapping[str, int] | None) -> tuple[Findings, list[str]]:
    """Check the ledger offline, against the live ledger if given; returns the findings and what does not add up."""
    findings = asyncio.run(check_offline(config))
    objections = [] if findings.clean else ["the offline check is not clean: run `replayforge check` to see all of it"]
    differing = {name for name, count in findings.ledger.as_json().items() if ledger and ledger[name] != count}
    if differing:
        objections.append(f"the offline ledger differs from the live one in {', '.join(sorted(differing))}")
    return findings, objections
