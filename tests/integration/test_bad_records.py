"""Records in the log that no store can take, or nobody can read: the daemon goes on, now and after every start."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from replayforge.domain.event import EVENT_RECORD_TYPE, encode_record
from replayforge.domain.identity import event_id_for_key, to_bytes
from replayforge.forgelog.record import NewRecord
from tests.contract.store_backends import BACKENDS
from tests.integration.conftest import echo_handlers
from tests.support.builders import record
from tests.support.house import House, open_house
from tests.support.postgres_server import require_postgres, shared_server
from tests.support.slow import the_rest_slow


def event_id(number: int) -> str:
    return event_id_for_key("app", str(number))


def bad_records() -> list[tuple[str, bytes]]:
    """Return (id, bytes) of records, each of another kind of bad."""
    fields: list[dict[str, Any]] = [
        {"workflow_id": "w\0x"},
        {"workflow_id": "w" * 100_000},
        {"event_type": "".join(chr(0x4E00 + number) for number in range(9_000))},
        {"idempotency_key": "".join(chr(0x3400 + 3 * number) for number in range(6_000))},
        {"run_at_us": 2**63 - 1},
        {"max_attempts": 2**63 - 1},
        {"metadata": msgspec.Raw(b"[1]")},
    ]
    ids = [event_id(number) for number in range(len(fields))]
    encoded = [encode_record(record(one, **given)) for one, given in zip(ids, fields, strict=True)]
    plain = encode_record(record(event_id(50), b'{"a": "b"}'))
    encoded += [
        plain.replace(b'"b"', b'"\xff\xfe"'),
        plain.replace(b'{"a": "b"}', b"[" * 200_000 + b"]" * 200_000),
        plain.replace(b'{"a": "b"}', b"{"),
        b"\xff" * 100,
        b"",
    ]
    return [(event_id(number), payload) for number, payload in enumerate(encoded)]


async def append_bad(house: House) -> None:
    for one, payload in bad_records():
        await house.daemon.log.append([NewRecord(payload, to_bytes(one), EVENT_RECORD_TYPE)])
        await house.send()


@pytest.mark.parametrize("backend", the_rest_slow(BACKENDS))
async def test_bad_records_end_no_service_and_stop_no_neighbour(tmp_path: Path, backend: str) -> None:
    """Honest events between bad records all succeed; no service restarts, and the next start finds nothing to do."""
    settings = {}
    if backend == "postgres":
        require_postgres()
        settings = {"store.url": shared_server().new_schema()}
    for _ in range(2):
        async with open_house(tmp_path / "data", echo_handlers(), settings) as house:
            await append_bad(house)
            honest = [await house.send() for _ in range(20)]
            for one in honest:
                await house.reaches(one, "succeeded")
            guards = house.daemon.supervisor.guards.values()
            assert {guard.service.name: guard.last_error for guard in guards if guard.restarts} == {}
            assert (await house.get("/api/convergence"))["ledger"]["lost"] == 0
