"""A proof as a JUnit file, one test case for each sample and crash, as CI systems read it."""

from collections.abc import Iterator
from xml.etree import ElementTree as Xml

from replayforge.prove.in_words import details_of
from replayforge.prove.judging import CrashCell, CrashMark
from replayforge.prove.proof import Proof, Row

SUITE = "replayforge prove"


def junit(proof: Proof) -> str:
    """Return the file: failures are what is red, errors what nobody can say, skipped what was not reached."""
    suites = Xml.Element("testsuites", name=SUITE)
    for row in proof.rows:
        suite_of(suites, f"{row.name} ({row.sample})", list(cases_of(row)))
    if proof.no_sample:
        suite_of(suites, "no sample", [untried(name, place) for name, place in proof.no_sample.items()])
    for total in ("tests", "failures", "errors", "skipped"):
        suites.set(total, str(sum(int(suite.get(total, "0")) for suite in suites)))
    suites.set("time", f"{proof.seconds:.3f}")
    Xml.indent(suites)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{Xml.tostring(suites, encoding="unicode")}\n'


def suite_of(suites: Xml.Element, name: str, cases: list[Xml.Element]) -> None:
    """Add a suite."""
    counts = {kind: sum(case.find(tag) is not None for case in cases) for kind, tag in KINDS.items()}
    suite = Xml.SubElement(suites, "testsuite", name=readable(name), tests=str(len(cases)), time="0")
    for kind, number in counts.items():
        suite.set(kind, str(number))
    suite.extend(cases)


KINDS = {"failures": "failure", "errors": "error", "skipped": "skipped"}
TAGS = {CrashMark.DOUBLED: "failure", CrashMark.FAILED: "failure", CrashMark.NOT_REACHED: "skipped"}


def cases_of(row: Row) -> Iterator[Xml.Element]:
    """Yield a test case for each crash, and one for each doubt."""
    for cell in row.cells:
        yield case_of(row, cell)
    for number, doubt in enumerate(row.doubts, 1):
        case = Xml.Element("testcase", classname=readable(row.name), name=f"undecided {number}", time="0")
        Xml.SubElement(case, "error", type="undecided", message=readable(doubt))
        yield case


def case_of(row: Row, cell: CrashCell) -> Xml.Element:
    """Return the test case of one crash."""
    case = Xml.Element("testcase", classname=readable(row.name), name=readable(cell.name), time="0")
    words = readable(details_of(cell))
    if cell.mark is CrashMark.NOT_REACHED:
        Xml.SubElement(case, "skipped", message=words)
    elif cell.mark in TAGS:
        Xml.SubElement(case, TAGS[cell.mark], type=cell.mark, message=words).text = words
    elif cell.held:
        Xml.SubElement(case, "system-out").text = words
    return case


def untried(name: str, place: str) -> Xml.Element:
    """Return the test case of a handler without a sample."""
    case = Xml.Element("testcase", classname=readable(name), name="no sample", time="0")
    Xml.SubElement(case, "error", type="no_sample", message=readable(f"nothing was tried with it ({place})"))
    return case


def readable(text: str) -> str:
    """Return text without the characters that XML cannot hold."""
    return "".join(one if one >= " " or one in "\t\n" else "?" for one in text if not "\ud800" <= one <= "\udfff")
