"""The crash matrix over HTTP, for endpoints in two languages without an SDK: each step as often as it must be done."""

import asyncio
import random
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from replayforge import Handlers
from replayforge.testing import Forge
from tests.crash import test_step_crashes, test_workflow_kills
from tests.crash.test_step_crashes import PASSES_MAX, SETTINGS, play
from tests.crash.test_workflow_kills import EVENTS, await_end, sent
from tests.support.daemon_process import DaemonProcess, HttpClient
from tests.support.fleet import node_of
from tests.support.slow import the_rest_slow
from tests.support.steps_endpoint import LANGUAGES, Effect, EndpointProcess
from tests.support.storm import PLACES, Place, daemons_at

# Every point on the road of a workflow whose steps are taken elsewhere, in an order in which one way leads past them.
POINTS = (
    "dispatch.committed", "claim.committed", "attempt.started", "step.committed", "park.committed", "promote.committed",
    "signal.matched", "child.appended", "attempt.finished", "settle.committed", "wake.committed",
)  # fmt: skip
ELSEWHERE = {"step.started", "step.returned"}  # where a function in the daemon's own process is called
FAILS_ONCE = "archive"
PER_KILL = 1  # workflows that begin between two kills


@pytest.fixture(scope="module", params=the_rest_slow(LANGUAGES))
def endpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EndpointProcess]:
    """An endpoint that lives on while daemons die."""
    with EndpointProcess(request.param, tmp_path_factory.mktemp(request.param)) as process:
        yield process


async def played(endpoint: EndpointProcess, *points: str) -> tuple[Any, list[str], Counter[str]]:
    """Play the workflow with crashes; returns its result, where the daemon died, and how often each step was done."""
    forge = Forge(Handlers(), settings=SETTINGS | endpoint.settings, serve=True)
    result, deaths = await play(forge, *points)
    happened = endpoint.effects()
    endpoint.forget()
    assert len({effect.key for effect in happened}) == len({effect.step for effect in happened})
    return result, deaths, Counter(effect.step for effect in happened)


@pytest.fixture(scope="module")
def undisturbed(endpoint: EndpointProcess) -> tuple[Any, Counter[str]]:
    """What comes of the workflow without a crash, and how often each step is done then."""
    result, _, once = asyncio.run(played(endpoint))
    assert {step for step, count in once.items() if count != 1} == {FAILS_ONCE}
    return result, once


def test_every_point_that_endpoints_come_to_is_here() -> None:
    assert set(POINTS) == test_step_crashes.POINTS.keys() - ELSEWHERE


async def test_crashes_at_all_points_one_after_the_other_repeat_nothing_that_was_recorded(
    endpoint: EndpointProcess, undisturbed: tuple[Any, Counter[str]]
) -> None:
    """A checkpoint is recorded or was never answered: between the two there is no point at which a daemon can die."""
    expected, once = undisturbed
    result, deaths, happened = await played(endpoint, *POINTS)
    assert deaths == list(POINTS)
    assert result == expected
    assert happened.keys() == once.keys()
    assert happened.total() - once.total() <= 2  # what the order does while its children's daemon dies


@pytest.mark.soak
@pytest.mark.parametrize("point", POINTS)
async def test_a_crash_at_any_pass_of_any_point_repeats_nothing_that_was_recorded(
    endpoint: EndpointProcess, undisturbed: tuple[Any, Counter[str]], point: str
) -> None:
    expected, once = undisturbed
    for nth in range(1, PASSES_MAX):
        result, deaths, happened = await played(endpoint, f"{point}:{nth}")
        if not deaths:  # the workflow does not come here so often
            break
        again = happened - once
        sys.stderr.write(f"{point}:{nth} {dict(again)}\n")
        assert result == expected
        assert happened.keys() == once.keys()
        assert again.total() <= 1, again
    assert nth > 1


# Kills at random instants


@dataclass
class Storm:
    """Daemons and an endpoint that are killed and started again; `hit` are the attempts that this may have cost."""

    place: Place
    endpoint: EndpointProcess
    rng: random.Random
    hit: set[tuple[str, int]] = field(default_factory=set)
    kills: Counter[str] = field(default_factory=Counter)

    @property
    def daemons(self) -> list[DaemonProcess]:
        return self.place.daemons

    def strike(self) -> None:
        """Kill the endpoint, a daemon, or both, and start them again."""
        what = self.rng.choice([("endpoint",), ("daemon",), ("endpoint", "daemon")])
        self.kills.update(what)
        if "endpoint" in what:
            self.endpoint.kill()
            recorded = self.recorded()
            effects = self.endpoint.effects()
            self.hit |= {(one.event, one.token) for one in effects if (one.event, one.step) not in recorded}
        if "daemon" in what:
            daemon = self.rng.choice(self.daemons)
            daemon.kill()
            self.hit |= self.held_by(node_of(daemon))
            daemon.start()
        if "endpoint" in what:
            self.endpoint.start()

    def recorded(self) -> dict[tuple[str, str], int]:
        """Return under which lease token each step was recorded."""
        rows = self.place.select(
            "SELECT id, step, token FROM {}.steps AS steps JOIN {}.events ON seq = event_seq"
            " WHERE kind = 'step' AND steps.state IN ('done', 'failed')"
        )
        return {(event_id, step): token for event_id, step, token in rows}

    def held_by(self, node: str) -> set[tuple[str, int]]:
        """Return the attempts that a daemon had under way when it died."""
        rows = self.place.select("SELECT id, lease_token, lease_owner FROM {}.events WHERE state = 'processing'")
        return {(event_id, token) for event_id, token, owner in rows if owner.startswith(node)}


def storms() -> Iterator[Any]:
    """Both languages at both places; few kills of each once, where that costs little."""
    for language in LANGUAGES:
        for place in PLACES:
            if (language, place) in {("flask", "embedded"), ("node", "shared")}:
                yield pytest.param(language, place, 3, marks=pytest.mark.slow)
            yield pytest.param(language, place, 200, marks=pytest.mark.soak)


async def results_undisturbed(endpoint: EndpointProcess, workflows: int) -> list[Any]:
    """Return what workflows come to that nobody disturbs."""
    settings, patience_seconds = SETTINGS | endpoint.settings, 30.0 + 2 * workflows
    async with Forge(Handlers(), settings=settings, serve=True, patience_seconds=patience_seconds) as forge:
        orders = [await forge.send(**sent("order", number)) for number in range(workflows)]
        for number in range(workflows):
            await forge.send(**sent("confirmed", number))
        await forge.advance(hours=1)
        endpoint.forget()
        return [order.result for order in orders]


@pytest.mark.parametrize(("language", "where", "kills"), list(storms()))
async def test_kills_of_daemon_and_endpoint_repeat_nothing_recorded_and_change_no_result(
    language: str, where: str, kills: int, tmp_path: Path
) -> None:
    """What was done twice was in an attempt that a kill has hit, and no attempt does what an earlier one recorded."""
    settings: dict[str, Any] = {"retry.max_attempts": 1000, "workers.count": 4}
    with EndpointProcess(language, tmp_path, seconds=0.02) as endpoint:
        expected = await results_undisturbed(endpoint, kills * PER_KILL)
        with daemons_at(where, tmp_path, **endpoint.settings, **settings) as place:
            storm = Storm(place, endpoint, random.Random(f"{language} {where} {kills}"))
            test_workflow_kills.play(storm, kills, PER_KILL)
            reader = storm.daemons[0].http
            await_end(reader, len(expected))
            for number, result in enumerate(expected):
                judge(reader.get(f"/api/events?workflow_id=workflow-{number}")["items"], reader, result)
            repeated = judge_effects(endpoint.effects(), storm)
            refused_as_stale(endpoint.effects(), reader)
            for daemon in storm.daemons:
                assert daemon.terminate() == 0
                checked = daemon.run_command("check", "--data-dir", str(daemon.data_dir))
                assert checked.code == 0, checked
    sys.stderr.write(f"{language} {where}: {dict(storm.kills)} kills, {repeated} steps done again\n")


def judge(events: list[dict[str, Any]], reader: HttpClient, expected: Any) -> None:
    """Demand that a workflow has the events it should have, each once, and comes to what it comes to undisturbed."""
    assert sorted((one["event_type"], one["status"]) for one in events) == [(one, "succeeded") for one in EVENTS]
    (order,) = (one["id"] for one in events if one["event_type"] == "order")
    assert reader.event(order)["result"] == expected


def judge_effects(effects: list[Effect], storm: Storm) -> int:
    """Demand that each step was done once, and once more for each kill inside it; returns how many were these."""
    recorded, done = storm.recorded(), Counter[tuple[str, str]]()
    repeated = 0
    for effect in effects:
        known = effect.event, effect.step
        assert effect.token <= recorded[known], f"{effect} was done after it had been recorded"
        if effect.token < recorded[known] and (effect.event, effect.token) in storm.hit:
            repeated += 1
        else:
            done[known] += 1
    assert {known: count for known, count in done.items() if count > 1 + (known[1] == FAILS_ONCE)} == {}
    assert {(effect.event, effect.step) for effect in effects} == recorded.keys()
    assert len({effect.key for effect in effects}) == len(recorded)
    return repeated


def refused_as_stale(effects: list[Effect], reader: HttpClient) -> None:
    """Demand that no attempt of the past is listened to any more, least of all one that was killed."""
    for token, url in {(effect.token, effect.url) for effect in effects[-200:]}:
        body = {"lease_token": token, "did": [{"step": "late", "ok": 1}]}
        assert reader.post(urlsplit(url).path, body).status == 409
