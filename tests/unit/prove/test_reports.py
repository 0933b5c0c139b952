"""A proof as text, as a JUnit file and as a page: each says the same, and none leaves a handler out."""

import re
from xml.etree import ElementTree as Xml

from replayforge.prove.in_words import lines_of
from replayforge.prove.judging import CrashCell, CrashMark, Doubled
from replayforge.prove.junit import junit
from replayforge.prove.page import page_of
from replayforge.prove.proof import BAD, CLEAN, UNDECIDED, Proof, Row

DOUBLED = Doubled(
    "POST https://bank/\x07<b>", 1, "/app/handlers.py:12", "/app/bank.py:7", "", "pay", "wrap it in ctx.step(...)"
)
CELLS = (
    CrashCell("attempt.started", 1, CrashMark.CONVERGED, extra_starts=1),
    CrashCell("attempt.finished", 1, CrashMark.DOUBLED, doubled=(DOUBLED,)),
    CrashCell("step.returned", 2, CrashMark.HELD, step="charge", held=("order.paid is held, in doubt: step charge",)),
    CrashCell("settle.committed", 1, CrashMark.FAILED, objections=("3 acknowledged events are lost",)),
    CrashCell("publish.done", 1, CrashMark.NOT_REACHED),
)
ROW = Row(
    "paid.json",
    "order.paid",
    ("order.*",),
    ("order.paid",),
    CELLS,
    ("order.paid waits: what comes after is not proved",),
    1,
    2,
)
PROOF = Proof(("handlers.py",), (ROW,), {"order.sent": "/app/handlers.py:40"}, 12.5, "2026-11-28T09:00:00Z")


def proof(*cells: CrashCell, doubts: tuple[str, ...] = (), no_sample: tuple[str, ...] = ()) -> Proof:
    rows = (Row("paid.json", "order.paid", ("order.*",), (), cells, doubts),)
    return Proof(("handlers.py",), rows, dict.fromkeys(no_sample, ""), 1, "")


def test_the_exit_code() -> None:
    """What is red beats what nobody can say, and that beats what is clean; to hold an event is right."""
    assert PROOF.exit_code == BAD
    assert proof(CELLS[0], CELLS[2], CELLS[4]).exit_code == CLEAN
    assert proof(CELLS[0], doubts=("?",)).exit_code == UNDECIDED
    assert proof(CELLS[0], no_sample=("order.sent",)).exit_code == UNDECIDED
    assert proof(CELLS[1], no_sample=("order.sent",)).exit_code == BAD


def test_the_words() -> None:
    told = "\n".join(lines_of(PROOF))
    assert "✓ 1 of 5 trials: converged, nothing doubled; 1 start more than without" in told
    assert "happened twice, /app/handlers.py:12 in pay (the call itself: /app/bank.py:7): wrap it in ctx.st" in told
    assert "? step.returned:2 charge: order.paid is held, in doubt: step charge" in told
    assert "order.sent  no sample" in told
    assert told.splitlines()[-1].startswith("✕ 5 trials of 1 sample, 2 of them doubled an effect or did not converge")


# The usual schema of JUnit files: what each element may hold, and what it must say.
FORM = {
    "testsuites": ({"testsuite"}, {"name", "tests", "failures", "errors", "skipped", "time"}, {"name"}),
    "testsuite": ({"testcase"}, {"name", "tests", "failures", "errors", "skipped", "time"}, {"name", "tests"}),
    "testcase": ({"failure", "error", "skipped", "system-out"}, {"classname", "name", "time"}, {"classname", "name"}),
    "failure": (set(), {"type", "message"}, {"type"}),
    "error": (set(), {"type", "message"}, {"type"}),
    "skipped": (set(), {"message"}, set()),
    "system-out": (set(), set(), set()),
}


def test_the_junit_file_has_the_usual_form() -> None:
    """Every element is where it may be and says what it must, the counts are right, and all text is XML's."""
    root = Xml.fromstring(junit(PROOF).partition("\n")[2])
    assert root.tag == "testsuites"
    for element in root.iter():
        children, known, needed = FORM[element.tag]
        assert {child.tag for child in element} <= children
        assert needed <= set(element.keys()) <= known, element.tag
    for level in (root, *root):
        for count, tag in (("tests", "testcase"), ("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
            assert int(level.get(count, "")) == len(list(level.iter(tag))), (level.tag, count)
    assert [root.get(name) for name in ("tests", "failures", "errors", "skipped")] == ["7", "2", "2", "1"]


def test_the_page_shows_the_matrix() -> None:
    page = page_of(PROOF)
    rows = re.findall(r'<tr><th scope="row">([a-z.]+)</th>', page)
    assert rows == ["publish.done", "attempt.started", "attempt.finished", "step.returned", "settle.committed"]
    assert 'title="step.returned:2 charge: order.paid is held' in page
    assert "order.sent: no sample" in page
    assert "<b>" not in page
