"""How the rate of a bulk replay bears delays, in the store that goes by the caller's clock."""

from pathlib import Path

from tests.contract.store_backends import MINUTE_US, store_house
from tests.contract.test_replay_contract import dead, running
from tests.support.builders import now_us


async def test_delay_is_caught_up_with_in_part(tmp_path: Path) -> None:
    """After a delay the next batch comes a little earlier, so that the rate holds on the whole."""
    async with store_house("sqlite", tmp_path) as house:
        store = await house.join()
        await dead(store, 4)
        job = await running(store, rate_per_second=4)
        at_us, waits = now_us() + MINUTE_US, []
        for late_us in (0, 100_000, 0):
            done = await store.advance_replay(job.seq, 1, at_us + late_us)
            assert done is not None
            assert len(done.entries) == 1
            waits.append(done.wait_us)
            at_us += late_us + done.wait_us
        assert waits == [0, 150_000, 250_000]
