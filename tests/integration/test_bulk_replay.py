"""Bulk replays as people use them: over HTTP, carried on by the daemon, whatever happens meanwhile."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from replayforge.domain.bulk_replay import JobState, ReplayOrder
from replayforge.domain.clock import parse_time
from replayforge.domain.event import Event
from replayforge.domain.lifecycle import State
from replayforge.domain.reports import EventFilter
from replayforge.domain.retry import Permanent
from replayforge.engine.handlers.context import Context
from replayforge.engine.handlers.registry import Handlers
from replayforge.engine.replay.jobs import Chosen
from replayforge.supervisor import SimulatedCrash
from replayforge.testing import Crashed, Forge
from tests.integration.test_store_away import no_answers
from tests.support.house import House, open_house
from tests.support.polling import persist

MENDED_IN_RUN = 2


def mending_handlers() -> Handlers:
    """Return handlers of which every run fails for good before the run that the payload names as mended."""
    handlers = Handlers()

    @handlers.on("*", max_attempts=1)
    async def mending(event: Event, context: Context) -> None:
        if event.run < event.payload.get("mended", MENDED_IN_RUN):
            raise RuntimeError(f"not mended: {event.event_type}")

    @handlers.on("hangs", max_attempts=1)
    async def hangs(event: Event, context: Context) -> None:
        if event.run < MENDED_IN_RUN:
            raise RuntimeError("not mended")
        await asyncio.sleep(3600)

    return handlers


@pytest.fixture
def handlers() -> Handlers:
    return mending_handlers()


@pytest.fixture
def settings() -> dict[str, Any]:
    return {"supervisor.grace_seconds": 0.1}  # some handlers never return


async def dead(house: House, count: int, event_type: str = "broken", **payload: Any) -> list[str]:
    """Return the ids of so many dead letters."""
    ids = await house.send_many(count, event_type, payload)
    await house.converges()
    return ids


async def make(house: House, **body: Any) -> dict[str, Any]:
    """Make a bulk replay of every dead letter, unless the body says otherwise, and return it."""
    chosen: dict[str, Any] = {} if "ids" in body else {"filter": {}}
    status, answer = await house.post("/api/replays", {**chosen, "reason": "mended", **body})
    assert status == 202, answer
    return dict(answer)


async def job_in(house: House, job: dict[str, Any], *states: str, ended: bool = False) -> dict[str, Any]:
    """Return the job once it is in one of the states, and with `ended` once nothing of it is open."""

    async def look() -> dict[str, Any] | None:
        now: dict[str, Any] = await house.get(f"/api/replays/{job['id']}")
        return now if now["status"] in states and not (ended and now["open"]) else None

    found = await persist(look)
    assert found is not None
    return found


async def runs(house: House, ids: Sequence[str]) -> list[int]:
    return [(await house.event(event_id))["run"] for event_id in ids]


FIGURES = ("total", "waiting", "replayed", "skipped", "succeeded", "dead_lettered", "superseded", "open")


def figures(job: dict[str, Any]) -> dict[str, int]:
    """Return the figures that are not zero."""
    return {name: job[name] for name in FIGURES if job[name]}


# Looking first


async def test_dry_run_says_what_would_be_taken_and_writes_nothing(house: House) -> None:
    """A dry run counts, samples and groups; no job is made and no event touched."""
    ids = await dead(house, 12) + await dead(house, 3, "worse")
    status, answer = await house.post("/api/replays", {"filter": {}, "dry_run": True, "max": 4})
    assert status == 200
    assert (answer["count"], answer["would_replay"], answer["max"], answer["more"]) == (15, 4, 4, False)
    assert answer["sample"] == ids[:10]
    assert [group["count"] for group in answer["groups"]] == [12, 3]
    _, answer = await house.post("/api/replays", {"filter": {"event_type": "wor*"}, "dry_run": True})
    assert (answer["count"], answer["sample"]) == (3, ids[12:])
    _, answer = await house.post("/api/replays", {"ids": [ids[0], "nobody"], "dry_run": True})
    assert (answer["count"], answer["sample"]) == (1, ids[:1])
    assert (await house.get("/api/replays"))["items"] == []
    assert set(await runs(house, ids)) == {1}


@pytest.mark.parametrize("dry_run", [False, True])
async def test_another_number_than_expected_is_409_with_both(house: House, dry_run: bool) -> None:
    """When another number of events fits than was expected, both numbers are named and nothing is done."""
    ids = await dead(house, 3)
    body = {"filter": {}, "reason": "r", "expected_count": 5, "dry_run": dry_run}
    status, problem = await house.post("/api/replays", body)
    assert (status, problem["expected_count"], problem["count"]) == (409, 5, 3)
    assert "5 events were expected and 3 fit" in problem["detail"]
    assert (await house.get("/api/replays"))["items"] == []
    assert set(await runs(house, ids)) == {1}
    assert (await house.post("/api/replays", body | {"expected_count": 3}))[0] == (200 if dry_run else 202)


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no reason": ({"filter": {}}, "needs a reason"),
    "blank reason": ({"filter": {}, "reason": "  "}, "needs a reason"),
    "neither ids nor filter": ({"reason": "r"}, "either"),
    "both": ({"reason": "r", "filter": {}, "ids": ["a"]}, "either"),
    "no ids": ({"reason": "r", "ids": []}, "length >= 1"),
    "unknown field": ({"reason": "r", "filter": {"typ": "a"}}, "typ"),
    "unknown state": ({"reason": "r", "filter": {"status": "asleep"}}, "asleep"),
    "state that is not finished": ({"reason": "r", "filter": {"status": "queued"}}, "finished"),
    "succeeded without force": ({"reason": "r", "filter": {"status": "succeeded"}}, "force"),
    "no time": ({"reason": "r", "filter": {"since": "yesterday"}}, "RFC 3339"),
    "no rate": ({"reason": "r", "filter": {}, "rate_per_second": 0}, "> 0"),
    "no maximum": ({"reason": "r", "filter": {}, "max": 0}, ">= 1"),
    "too large a maximum": ({"reason": "r", "filter": {}, "max": 200_001}, "200000"),
    "negative canary": ({"reason": "r", "filter": {}, "canary": -1}, ">= 0"),
    "nothing fits": ({"reason": "r", "filter": {"event_type": "nothing"}}, "nothing to replay"),
    "nothing of these ids": ({"reason": "r", "ids": ["nobody"]}, "nothing to replay"),
}


async def test_what_makes_no_sense_is_422(house: House) -> None:
    """A request that cannot be carried out is refused with the reason, and no job is made."""
    (event_id,) = await dead(house, 1)
    for name, (body, words) in WRONG.items():
        status, problem = await house.post("/api/replays", body)
        assert status == 422, name
        assert words in problem["detail"], name
    assert (await house.get("/api/replays"))["items"] == []
    assert await runs(house, [event_id]) == [1]


# Doing it


async def test_every_dead_letter_is_replayed_and_counted(house: House) -> None:
    """All that matched run once more; the job says how each of them ended, and the ledger balances."""
    mended, broken = await dead(house, 30), await dead(house, 5, mended=9)
    job = await make(house, expected_count=35)
    assert (job["total"], job["matched"], job["duplicate"]) == (35, 35, False)
    done = await job_in(house, job, "done", ended=True)
    assert figures(done) == {"total": 35, "replayed": 35, "succeeded": 30, "dead_lettered": 5}
    assert done["reason"] == "mended"
    assert set(await runs(house, mended + broken)) == {2}
    (action,) = (await house.event(mended[0]))["actions"]
    assert (action["action"], action["detail"]) == ("replayed", f"mended (bulk replay {job['id']})")
    ledger = await house.converges()
    assert (ledger["succeeded"], ledger["dead_lettered"], ledger["lost"]) == (30, 5, 0)
    assert (await house.get("/api/metrics"))["replay_requeued"] == 35


async def test_answer_says_where_the_job_is(house: House) -> None:
    """202 names the job in Location, and the list shows it, newest first, page after page."""
    await dead(house, 1)
    async with house.http.post("/api/replays", json={"filter": {}, "reason": "r"}) as response:
        location = response.headers["Location"]
        assert location == f"/api/replays/{(await response.json())['id']}"
    made = [location.rpartition("/")[2]]
    for _ in range(2):
        await job_in(house, {"id": made[-1]}, "done", ended=True)
        await dead(house, 1)
        made.append((await make(house))["id"])
    first = await house.get("/api/replays?limit=2")
    assert [job["id"] for job in first["items"]] == made[:0:-1]
    rest = await house.get(f"/api/replays?limit=2&cursor={first['next_cursor']}")
    assert ([job["id"] for job in rest["items"]], rest["has_more"]) == (made[:1], False)
    for unknown in ("rpl_99", "99", "rpl_x", "rpl_0"):
        assert (await house.http.get(f"/api/replays/{unknown}")).status == 404


async def test_filter_ids_and_maximum(house: House) -> None:
    """Only what is meant is replayed: what passes the filter, what is named, and no more than was said."""
    one, other = await dead(house, 3, "one"), await dead(house, 5, "other")
    job = await job_in(house, await make(house, filter={"event_type": "one"}), "done")
    assert (job["total"], job["selection"]) == (3, {"filter": {"event_type": "one"}})
    job = await job_in(house, await make(house, ids=[other[3], other[1], "nobody"]), "done")
    assert (job["total"], job["selection"]) == (2, {"ids": 3})
    job = await job_in(house, await make(house, max=1), "done")
    assert (job["matched"], job["max"], job["total"]) == (3, 1, 1)
    await house.converges()
    assert await runs(house, one) == [2, 2, 2]
    assert await runs(house, other) == [2, 2, 1, 2, 1], "the oldest comes first"


async def test_succeeded_events_only_with_force(house: House) -> None:
    """With force succeeded events run once more; without it naming them replays nothing of them."""
    done = await house.send_many(2, "fine", {"mended": 1})
    await house.converges()
    (letter,) = await dead(house, 1)
    job = await job_in(house, await make(house, ids=[*done, letter]), "done", ended=True)
    assert job["total"] == 1
    job = await make(house, filter={"status": "succeeded", "event_type": "fine"}, force=True)
    job = await job_in(house, job, "done", ended=True)
    assert figures(job) == {"total": 2, "replayed": 2, "succeeded": 2}
    assert await runs(house, [*done, letter]) == [2, 2, 2]


async def test_what_was_moved_meanwhile_is_skipped(house: House) -> None:
    """Members that somebody else has moved since the job was made are left alone, and the reasons are told."""
    ids = await dead(house, 1, mended=3) + await dead(house, 4)
    job = await job_in(house, await make(house, canary=1), "paused")
    assert (await house.post(f"/api/deadletters/{ids[2]}/replay"))[0] == 202
    assert (await house.post(f"/api/deadletters/{ids[3]}/discard", {"reason": "old"}))[0] == 200
    await house.post(f"/api/replays/{job['id']}/resume")
    job = await job_in(house, job, "done", ended=True)
    assert figures(job) == {"total": 5, "replayed": 3, "skipped": 2, "succeeded": 2, "dead_lettered": 1}
    assert sorted((skip["reason"], skip["count"], skip["sample"]) for skip in job["skips"]) == [
        ("It was dead_lettered and is discarded now.", 1, ids[3]),
        ("It was replayed by somebody else meanwhile.", 1, ids[2]),
    ]
    assert await runs(house, ids) == [2, 2, 2, 1, 2]


async def test_two_jobs_over_the_same_letters(house: House) -> None:
    """Two jobs made at the same moment give each dead letter one new run between them."""
    ids = await dead(house, 40)
    jobs = await asyncio.gather(make(house), make(house))
    both = [await job_in(house, job, "done", ended=True) for job in jobs]
    await house.converges()
    assert set(await runs(house, ids)) == {2}
    assert sum(job["replayed"] for job in both) == 40
    assert sum(job["skipped"] for job in both) == sum(job["total"] for job in both) - 40
    skips = [skip for job in both for skip in job["skips"]]
    assert {skip["reason"] for skip in skips} <= {"It was replayed by somebody else meanwhile."}
    assert sum(skip["count"] for skip in skips) == sum(job["skipped"] for job in both)


async def test_rate(house: House) -> None:
    """With a rate the runs begin no faster than that."""
    ids = await dead(house, 8)
    await job_in(house, await make(house, rate_per_second=10), "done")
    times = [parse_time((await house.event(event_id))["actions"][0]["at"]) for event_id in ids]
    assert times == sorted(times)
    assert times[-1] - times[0] >= 350_000, "two at a time, each 0.2 s after the ones before, a delay caught up with"


async def test_large_job_waits_for_the_workers(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a rate no more is queued than the workers keep up with: fresh events do not wait behind all of it."""
    monkeypatch.setattr("replayforge.engine.replay.runner.QUEUED_MAX", 10)
    monkeypatch.setattr("replayforge.engine.replay.runner.BATCH_MAX", 20)
    await dead(house, 150, "hangs")
    runner, answers = house.daemon.replay_runner, 0
    ask = runner.queue_is_long

    async def counted() -> bool:
        nonlocal answers
        is_long = await ask()
        answers += is_long
        return is_long

    monkeypatch.setattr(runner, "queue_is_long", counted)
    job = await make(house)

    async def asked_often() -> bool:
        return answers >= 3

    await persist(asked_often)
    # What was queued a moment ago workers may have claimed ahead by now, so only the most there can be is certain.
    _, tallies = await house.daemon.store.ledger_snapshot()
    assert tallies["queued"] < 10 + 20
    assert (await house.get(f"/api/replays/{job['id']}"))["waiting"] > 0


# Canary


async def test_canary_that_lives_lets_the_rest_go(house: House) -> None:
    """When none of the first becomes a dead letter again, the others follow by themselves."""
    await dead(house, 10)
    job = await job_in(house, await make(house, canary=3), "done", ended=True)
    assert figures(job) == {"total": 10, "replayed": 10, "succeeded": 10}
    states = [fields["state"] for fields in house.probe.fields("replay.moved")]
    assert states == ["canary", "running", "done"]


async def test_canary_that_dies_pauses_the_rest(house: House) -> None:
    """When one of the first becomes a dead letter again, the job pauses and says why; resumed, it replays the rest."""
    ids = await dead(house, 2) + await dead(house, 1, mended=3) + await dead(house, 5)
    job = await job_in(house, await make(house, canary=3), "paused")
    assert figures(job) == {"total": 8, "waiting": 5, "replayed": 3, "succeeded": 2, "dead_lettered": 1}
    assert "1 of the first 3 became dead letters again" in job["note"]
    assert await runs(house, ids) == [2, 2, 2, 1, 1, 1, 1, 1]
    status, resumed = await house.post(f"/api/replays/{job['id']}/resume")
    assert (status, resumed["status"], resumed["note"]) == (200, "running", "")
    job = await job_in(house, job, "done", ended=True)
    assert figures(job) == {"total": 8, "replayed": 8, "succeeded": 7, "dead_lettered": 1}


async def test_canary_waits_for_every_end(house: House) -> None:
    """While one of the first has no end the others wait, and the job says that it is a canary still."""
    await dead(house, 1, "hangs")
    await dead(house, 3)
    job = await make(house, canary=2)
    await house.probe.saw("replay.followed")
    job = await job_in(house, job, "canary")
    assert figures(job) == {"total": 4, "waiting": 2, "replayed": 2, "succeeded": 1, "open": 1}


# By hand


async def test_pause_resume_cancel(house: House) -> None:
    """A paused job replays nothing until it is resumed; a cancelled one never again; what it replayed runs on."""
    ids = await dead(house, 6)
    job = await make(house, rate_per_second=0.1)
    await house.probe.saw("replay.advanced")
    path = f"/api/replays/{job['id']}"
    status, paused = await house.post(f"{path}/pause")
    assert (status, paused["status"], paused["note"]) == (200, "paused", "Paused by hand.")
    assert (await house.post(f"{path}/pause"))[0] == 409
    assert (await house.post(f"{path}/resume"))[1]["status"] == "running"
    status, problem = await house.post(f"{path}/resume")
    assert (status, "only a paused one" in problem["detail"]) == (409, True)
    status, cancelled = await house.post(f"{path}/cancel")
    assert (status, cancelled["status"]) == (200, "cancelled")
    for verb in ("pause", "resume", "cancel"):
        assert (await house.post(f"{path}/{verb}"))[0] == 409
    job = await job_in(house, job, "cancelled", ended=True)
    assert figures(job) == {"total": 6, "waiting": 5, "replayed": 1, "succeeded": 1}
    assert await runs(house, ids) == [2, 1, 1, 1, 1, 1]
    assert (await house.post("/api/replays/rpl_99/pause"))[0] == 404


async def test_paused_canary_is_a_canary_again(house: House) -> None:
    """A job that was paused in the middle of its canary goes on with it."""
    await dead(house, 4)
    job = await make(house, canary=2, rate_per_second=0.1)
    await job_in(house, job, "canary")
    await house.post(f"/api/replays/{job['id']}/pause")
    assert (await house.post(f"/api/replays/{job['id']}/resume"))[1]["status"] == "canary"


async def test_a_request_that_comes_again_makes_no_second_job(house: House) -> None:
    """The same Idempotency-Key is the same job; with another content it is refused."""
    await dead(house, 3)
    body = {"filter": {}, "reason": "r"}
    headers = {"Idempotency-Key": '"key-1"'}
    answers = await asyncio.gather(*(house.post("/api/replays", body, headers=headers) for _ in range(5)))
    assert sorted(status for status, _ in answers) == [200, 200, 200, 200, 202]
    assert len({answer["id"] for _, answer in answers}) == 1
    assert sorted(answer["duplicate"] for _, answer in answers) == [False, True, True, True, True]
    status, problem = await house.post("/api/replays", body | {"reason": "other"}, headers=headers)
    assert (status, "has made rpl_1" in problem["detail"]) == (422, True)
    assert (await house.post("/api/replays", body, headers={"Idempotency-Key": "x" * 256}))[0] == 400
    assert len((await house.get("/api/replays"))["items"]) == 1


# Trouble


async def test_store_that_goes_away_in_the_middle(house: House, tmp_path: Path) -> None:
    """A job that lost its store for a while goes on by itself, and each member runs once more, not twice."""
    ids = await dead(house, 40)
    job = await make(house, rate_per_second=40)
    await house.probe.saw("replay.advanced", 10)
    with no_answers(tmp_path / "data"):
        assert (await house.http.get(f"/api/replays/{job['id']}")).status == 200
        await house.probe.saw("store.failed")
    job = await job_in(house, job, "done", ended=True)
    assert figures(job) == {"total": 40, "replayed": 40, "succeeded": 40}
    assert set(await runs(house, ids)) == {2}


async def test_runner_that_crashes_goes_on(house: House) -> None:
    """A crash of the service that carries jobs on is followed by its restart, and by the rest of the job."""
    ids = await dead(house, 20)
    job = await make(house, rate_per_second=40)
    await house.probe.saw("replay.advanced", 5)
    house.daemon.supervisor.crash("replays")
    await house.probe.saw("service.restarted")
    job = await job_in(house, job, "done", ended=True)
    assert job["succeeded"] == 20
    assert set(await runs(house, ids)) == {2}
    assert any(SimulatedCrash.__name__ in fields["error"] for fields in house.probe.fields("service.crashed"))


async def test_jobs_go_on_at_the_next_start(tmp_path: Path) -> None:
    """A job that was under way when the daemon was stopped goes on when it runs again, a paused one stays paused."""
    async with open_house(tmp_path / "data", mending_handlers()) as house:
        ids = await dead(house, 30)
        paused = await make(house, ids=ids[20:], rate_per_second=0.1)
        await house.probe.saw("replay.advanced")
        running = await make(house, ids=ids[:20], rate_per_second=20)
        await house.probe.saw("replay.advanced", 6)
        assert (await house.post(f"/api/replays/{paused['id']}/pause"))[0] == 200
    async with open_house(tmp_path / "data", mending_handlers()) as house:
        done = await job_in(house, running, "done", ended=True)
        assert figures(done) == {"total": 20, "replayed": 20, "succeeded": 20}
        left = await house.get(f"/api/replays/{paused['id']}")
        assert (left["status"], left["waiting"]) == ("paused", 9)
        assert set(await runs(house, ids[:20])) == {2}


async def test_old_jobs_are_removed(house: House) -> None:
    """A job that ended long ago is removed when dead letters of that age are; never while the time is in doubt."""
    await dead(house, 3)
    job = await job_in(house, await make(house), "done", ended=True)
    jobs, later_us = house.daemon.replay_jobs, house.daemon.clock.now_us() + 60_000_000
    assert [await jobs.retire(*given) for given in ((None, 1), (later_us, 0), (later_us, 3600))] == [0, 0, 0]
    assert (await house.get(f"/api/replays/{job['id']}"))["id"] == job["id"]
    assert await jobs.retire(later_us, 1) == 3
    assert (await house.http.get(f"/api/replays/{job['id']}")).status == 404
    assert any(chore.name == "retire_replays" for chore in house.daemon.janitor.chores)


async def test_death_between_the_commit_of_a_batch_and_its_publication() -> None:
    """A batch that was committed and not published runs after the restart, and no member of it a second time."""
    handlers, runs = Handlers(), Counter[tuple[str, int]]()

    @handlers.on("*")
    async def mending(event: Event, context: Context) -> None:
        runs[event.id, event.run] += 1
        if event.run == 1:
            raise Permanent("it is not mended yet")

    async with Forge(handlers) as forge:
        members = [await forge.send("test") for _ in range(300)]
        await forge.settled()
        forge.crash_at("replay.committed:2")
        chosen = Chosen(wanted=EventFilter(state=State.DEAD_LETTERED))
        order = ReplayOrder(reason="mended", selection={}, rate_per_second=400)
        job, _ = await forge.do(forge.daemon.replay_jobs.create(chosen, order))
        with pytest.raises(Crashed):
            await forge.advance(minutes=1)
        published = sum(run == 2 for _, run in runs)
        assert 0 < published < sum(event.run == 2 for event in members)
        await forge.restart()
        await forge.advance(minutes=1)
        assert set(runs.values()) == {1}
        assert {event.status for event in members} == {"succeeded"}
        job, _ = await forge.do(forge.daemon.replay_jobs.find(job.id))
        assert (job.state, job.replayed, job.succeeded) == (JobState.DONE, 300, 300)
