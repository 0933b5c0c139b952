"""The one word for the daemon's state, always with its cause and the page that shows it."""

from collections.abc import Sequence
from dataclasses import dataclass

from replayforge.domain.admission import EVERYTHING
from replayforge.domain.clock import MICROSECONDS_PER_SECOND, format_time, to_us
from replayforge.domain.lifecycle import State
from replayforge.domain.reports import DeployFindings, Group
from replayforge.engine.report.convergence import OLDEST_QUEUED_SECONDS_MAX, Convergence
from replayforge.engine.report.daemon_status import HealthCheck, ServiceStatus
from replayforge.web.pages.words import duration, plural

RECENT_SECONDS = 60.0
DEAD_LETTERS_WINDOW_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class Health:
    """`level` is ok, warn or err; `cause` is a clause without a full stop; `link` is a path below the base.

    Where the cause happened at a time, that time (RFC 3339) stands between `cause` and `rest`.
    """

    word: str
    level: str
    cause: str
    link: str
    at: str = ""
    rest: str = ""


@dataclass(frozen=True, slots=True)
class Signs:
    """What the word is judged from; `unready_because` is empty while events are accepted."""

    unready_because: str
    checks: Sequence[HealthCheck]
    services: Sequence[ServiceStatus]
    report: Convergence | None
    dead_letters: Sequence[Group]
    unclean_start: bool
    started_at_us: int
    now_us: int
    deploy: DeployFindings | None = None


def judge(signs: Signs) -> Health:
    """Return the worst of what is true now; the more urgent questions are asked first."""
    questions = (
        down,
        missing_part,
        restarted_process,
        restarted_service,
        losses,
        decisions,
        paused,
        failing,
        stuck,
        dead_letters,
    )
    answers = (question(signs) for question in questions)
    return next((answer for answer in answers if answer is not None), healthy(signs))


def down(signs: Signs) -> Health | None:
    """Tell whether events cannot be accepted at all."""
    if signs.unready_because:
        return Health("Down", "err", f"no events are accepted: {signs.unready_because}", "/runtime#log")
    given_up = [service for service in signs.services if service.state == "failed"]
    if given_up:
        return Health("Down", "err", f"{given_up[0].name} was given up", "/runtime#supervisor")
    return None


def missing_part(signs: Signs) -> Health | None:
    """Tell whether the store or the stream does not answer as it should."""
    for check in signs.checks:
        if check.name in ("store", "stream") and check.status != "ok":
            return Health("Attention", "err", f"the {check.name}: {check.detail}", f"/runtime#{check.name}")
    return None


def restarted_process(signs: Signs) -> Health | None:
    """Tell whether the process came up after a crash a moment ago."""
    age = (signs.now_us - signs.started_at_us) / MICROSECONDS_PER_SECOND
    if signs.unclean_start and 0 <= age < RECENT_SECONDS:
        at = format_time(signs.started_at_us)
        return Health("Recovering", "warn", "the process had died and was started again", "/runtime#recovery", at)
    return None


def restarted_service(signs: Signs) -> Health | None:
    """Tell whether a service crashed within the last minute."""
    crashed = [service for service in signs.services if service.last_error_at_us is not None]
    newest = max(crashed, key=lambda service: service.last_error_at_us or 0, default=None)
    if newest is None or newest.last_error_at_us is None:
        return None
    if not 0 <= signs.now_us - newest.last_error_at_us < to_us(RECENT_SECONDS):  # below 0 the clock was set back
        return None
    rest = "and is not back yet" if newest.state == "restarting" else f"and is {newest.state} again"
    place = "workers" if newest.name.startswith("worker-") else "supervisor"
    at = format_time(newest.last_error_at_us)
    return Health("Recovering", "warn", f"{newest.name} crashed", f"/runtime#{place}", at, rest)


def losses(signs: Signs) -> Health | None:
    """Tell whether an acknowledged event is missing."""
    if signs.report is not None and signs.report.ledger.lost:
        cause = f"{plural(signs.report.ledger.lost, 'acknowledged event')} without a row"
        return Health("Attention", "err", cause, "/runtime#ledger")
    return None


def decisions(signs: Signs) -> Health | None:
    """Tell whether somebody has to decide, or something waits too long."""
    if signs.report is None:
        return None
    stranded = [node for node in signs.report.gone if node.unprojected]
    if stranded:
        cause = f"{plural(stranded[0].unprojected, 'accepted event')} lie on {stranded[0].name}, which is not heard of"
        return Health("Attention", "err", cause, "/runtime#nodes")
    held = signs.report.ledger.states.get(State.HELD, 0)
    if held:
        is_of_gate = signs.deploy is not None and signs.deploy.breaking
        link = "/events?status=held" if is_of_gate else "/in-doubt"
        return Health("Attention", "warn", f"{plural(held, 'event')} held for a decision", link)
    if signs.deploy is not None and signs.deploy.breaking:
        cause = f"{plural(signs.deploy.breaking, 'open run')} would not go on with the code that runs now"
        return Health("Attention", "warn", cause, "/events?status=waiting")
    if signs.report.oldest_queued_seconds > OLDEST_QUEUED_SECONDS_MAX:
        cause = f"the oldest queued event has waited {duration(signs.report.oldest_queued_seconds)}"
        return Health("Attention", "warn", cause, "/events?status=queued")
    return None


def paused(signs: Signs) -> Health | None:
    """Tell whether somebody has paused a handler, or everything, and not resumed it."""
    if signs.report is None or not signs.report.pauses:
        return None
    pause = min(signs.report.pauses, key=lambda pause: pause.pattern != EVERYTHING)
    is_all, more = pause.pattern == EVERYTHING, len(signs.report.pauses) - 1
    what = "everything" if is_all else f"the handler {pause.pattern}"
    others = f" and {plural(more, 'other')}" if more and not is_all else ""
    rest = f"by {pause.by}: {pause.reason}"
    return Health("Attention", "warn", f"{what}{others} paused", "/handlers", format_time(pause.since_us), rest)


def failing(signs: Signs) -> Health | None:
    """Tell whether an endpoint fails so often that it is left alone."""
    if signs.report is None or not signs.report.broken:
        return None
    return Health("Attention", "warn", f"the endpoint for {signs.report.broken[0]} fails again and again", "/handlers")


def stuck(signs: Signs) -> Health | None:
    """Tell whether handlers do not end, although their attempts were settled."""
    if signs.report is None or not signs.report.stuck:
        return None
    return Health("Attention", "warn", signs.report.stuck[0].removesuffix("."), "/handlers")


def dead_letters(signs: Signs) -> Health | None:
    """Tell whether events ended as dead letters within the last hour; older ones do not cry for ever."""
    since_us = signs.now_us - to_us(DEAD_LETTERS_WINDOW_SECONDS)
    fresh = [group for group in signs.dead_letters if group.last_at_us >= since_us]
    if not fresh or signs.report is None:
        return None
    number = signs.report.ledger.states[State.DEAD_LETTERED]
    last = format_time(max(group.last_at_us for group in fresh))
    mostly = max(fresh, key=lambda group: group.count).name
    cause = f"{plural(number, 'dead letter')}, the last"
    return Health("Attention", "warn", cause, "/dead-letters", last, f"mostly “{mostly}”")


def healthy(signs: Signs) -> Health:
    """Say that all is well, and how much is on its way."""
    backlog = signs.report.backlog if signs.report else 0
    cause = f"{plural(backlog, 'event')} on the way" if backlog else "everything that was due has ended"
    apart = []
    if signs.report and signs.report.waiting:
        apart.append(f"{plural(signs.report.waiting, 'event')} parked")
    if signs.report and signs.report.kept:
        apart.append(f"{plural(signs.report.kept, 'signal')} kept")
    return Health("Healthy", "ok", ", ".join([cause, *apart]), "/runtime")
