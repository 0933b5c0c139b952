"""kill -9 while customers' events run in strict order, judged by what the handlers have left outside of the process."""

from collections import defaultdict
from functools import partial
from itertools import pairwise
from pathlib import Path

from tests.support.daemon_process import DaemonProcess, until
from tests.support.sink import QUICK, SINK_HANDLERS, Line, lines_of

CUSTOMERS, EACH = 50, 20
LANE = {"match": "*", "key": "workflow_id", "order": "strict"}
KINDS = {0: ("flaky.one", {"failures": 1}), 1: ("slow.one", {"seconds": 0.01})}


def test_customers_in_order_through_kills(tmp_path: Path) -> None:
    """50 customers x 20 events, some of which fail, with kill -9 on the way: in order per customer, side by side."""
    events = [event(customer, number) for number in range(EACH) for customer in range(CUSTOMERS)]
    with DaemonProcess(tmp_path, SINK_HANDLERS, settings={**QUICK, "lanes": [LANE], "workers.count": 16}) as daemon:
        daemon.start()
        ids = daemon.http.send_many(events)
        for share in (0.2, 0.5, 0.8):
            enough = int(share * len(ids))
            until(partial(have_ended, tmp_path, enough), 60, f"{enough} events to end")
            daemon.kill()
            daemon.start()
        until(daemon.converged, 60, "convergence")
        assert ended_ids(tmp_path) == set(ids)
        numbered = {event_id: divmod(place, CUSTOMERS)[::-1] for place, event_id in enumerate(ids)}
        judge(lines_of(tmp_path), numbered)
        assert daemon.terminate() == 0
        checked = daemon.run_command("check", "--data-dir", str(daemon.data_dir))
        assert checked.code == 0, checked


def event(customer: int, number: int) -> dict[str, object]:
    event_type, payload = KINDS.get((customer + number) % 5, ("quick.one", {}))
    return {"workflow_id": f"customer-{customer}", "event_type": event_type, "payload": payload}


def ended_ids(directory: Path) -> set[str]:
    return {line.event_id for line in lines_of(directory) if line.word == "ended"}


def have_ended(directory: Path, count: int) -> bool:
    return len(ended_ids(directory)) >= count


def judge(lines: list[Line], numbered: dict[str, tuple[int, int]]) -> None:
    """No event was started before the last start of the one before it had ended, and customers ran side by side."""
    starts: defaultdict[int, list[int]] = defaultdict(list)
    ended: set[str] = set()
    running: set[int] = set()
    most_at_once = 0
    by_number = {pair: event_id for event_id, pair in numbered.items()}
    for line in lines:
        customer, number = numbered[line.event_id]
        if line.word == "started":
            assert number == 0 or by_number[customer, number - 1] in ended, (customer, number)
            starts[customer].append(number)
            running.add(customer)
            most_at_once = max(most_at_once, len(running))
        else:
            ended.add(line.event_id)
            running.discard(customer)
    for customer, numbers in starts.items():
        assert sorted(set(numbers)) == list(range(EACH))
        assert all(first <= second for first, second in pairwise(numbers)), (customer, numbers)
    assert most_at_once > 1
