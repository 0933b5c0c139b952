"""After kill -9 with many events open: how long from listening until those in flight run again, and all have ended?"""

import contextlib
import sqlite3
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

from bench.load import python_client
from bench.processes import daemon, directory

OPEN_EVENTS = (1000, 10_000)
ROUNDS = 3
EVENTS_PER_REQUEST = 100
HANDLER_SECONDS = 0.05
LOOK_SECONDS = 0.005
SECONDS_MAX = 60.0


@dataclass(frozen=True, slots=True)
class Round:
    """One kill and the restart after it, in seconds: until it listens, and from then on."""

    open_events: int
    in_flight: int
    until_listening: float
    until_running_again: float
    until_all_ended: float
    extra_starts: int


def started(file: Path) -> dict[str, list[float]]:
    """Return when each event was started, as its handler has written down."""
    found: dict[str, list[float]] = {}
    for line in file.read_text().splitlines():
        event_id, at = line.split()
        found.setdefault(event_id, []).append(float(at))
    return found


def ended(store: Path) -> set[str]:
    """Return which events have ended, without changing what the next start will find."""
    with contextlib.closing(sqlite3.connect(f"file:{store}?mode=ro", uri=True)) as connection:
        return {row[0] for row in connection.execute("SELECT id FROM events WHERE state = 'succeeded'")}


def kill_and_restart(folder: Path, events: int) -> Round:
    """Kill a daemon that has so many events to do, and watch another one go on with them."""
    starts = folder / "starts"
    with daemon(folder / "data", handler_seconds=HANDLER_SECONDS, starts=starts) as running:
        python_client(running.url, events // EVENTS_PER_REQUEST, EVENTS_PER_REQUEST, 4)
        running.process.kill()
    done = ended(folder / "data" / "store.db")
    in_flight = started(starts).keys() - done
    restarted = time.monotonic()
    with daemon(folder / "data", starts=starts) as running:
        listening = time.monotonic()
        while running.ledger()["succeeded"] < events:
            if time.monotonic() - listening > SECONDS_MAX:
                raise RuntimeError(f"After {SECONDS_MAX:.0f} s some have not ended: {running.ledger()}")
            time.sleep(LOOK_SECONDS)
        all_ended = time.monotonic()
    every = started(starts)
    again = [next((at for at in every[one] if at > restarted), all_ended) for one in in_flight]
    return Round(
        open_events=events - len(done),
        in_flight=len(in_flight),
        until_listening=listening - restarted,
        until_running_again=max(again) - listening,
        until_all_ended=all_ended - listening,
        extra_starts=sum(map(len, every.values())) - events,
    )


def main() -> None:
    """Print a line for each number of open events, medians of three rounds."""
    print("seconds; in flight: its handler had been started and had not ended")
    print(
        f"{'open':>7} {'in flight':>9} {'restart to listening':>21} {'listening to all in flight again':>33}"
        f" {'to all ended':>13} {'restart to all ended':>21} {'starts beyond one':>18}"
    )
    for events in OPEN_EVENTS:
        rounds = []
        for _ in range(ROUNDS):
            with directory() as folder:
                rounds.append(kill_and_restart(folder, events))
        figures = {name: statistics.median(getattr(one, name) for one in rounds) for name in Round.__slots__}
        print(
            f"{figures['open_events']:7,.0f} {figures['in_flight']:9.0f} {figures['until_listening']:21.2f}"
            f" {figures['until_running_again']:33.2f} {figures['until_all_ended']:13.2f}"
            f" {statistics.median(one.until_listening + one.until_all_ended for one in rounds):21.2f}"
            f" {figures['extra_starts']:18.0f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
