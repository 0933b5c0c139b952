"""The documents of the guide: their order, each as HTML of ours, and the search in their text."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import resources
from itertools import chain, pairwise

from markdown_it import MarkdownIt
from markdown_it.token import Token


@dataclass(frozen=True, slots=True)
class Document:
    """A document of the package, and one line about what is in it."""

    name: str
    title: str
    about: str


@dataclass(frozen=True, slots=True)
class Passage:
    """A heading of a document with the text below it, as far as the next heading; `anchor` leads there."""

    document: Document
    heading: str
    anchor: str
    text: str


@dataclass(frozen=True, slots=True)
class Hit:
    """A passage that was found, and a piece of its text around what was looked for."""

    passage: Passage
    excerpt: str


GROUPS: dict[str, tuple[Document, ...]] = {
    "Use": (
        Document("quickstart", "Quick start", "Five minutes: a handler, an event, a kill -9, and it ends."),
        Document("sending", "Sending events", "curl, many at once, and the clients for Python."),
        Document("idempotency", "Idempotency keys", "What is compared, for how long, and what to do at 422."),
        Document("webhooks", "Webhooks", "Providers send straight to the daemon."),
    ),
    "Write": (
        Document("handlers", "Writing handlers", "Every option, the event, the context, results, retries, threads."),
        Document("workflows", "Workflows that remember", "Steps, waits, child events, compensation, cancel."),
        Document("recipes", "Recipes", "A saga, approvals, busy partners, fan-out, handlers in Node and Go."),
        Document("lanes", "Lanes", "Order, concurrency and rates, and what blocks what."),
        Document("schedules", "Schedules", "Events by cron, or every so many seconds."),
        Document("replaying", "Replaying", "One, a workflow, or 200,000 with a canary and a rate."),
        Document("shadow", "Shadow: before you deploy", "What new code would do with history, field by field."),
        Document("http_steps", "Steps over HTTP", "Workflows in any language, without an SDK."),
        Document("testing", "Testing handlers", "Days in milliseconds, and kills where you say."),
        Document("prove", "Proving handlers", "Which call a crash would double, and at which line."),
    ),
    "Run": (
        Document("operating", "Operating", "Sizing, proxies, probes, upgrades, alerts, and what to do when."),
        Document("several_daemons", "Several daemons", "Redis and PostgreSQL, and what changes with them."),
        Document("chaos", "Chaos", "Kills, hangs, wipes and cut lines, and the proof that nothing is lost."),
        Document("errors", "Errors", "Every problem, every code of the log, every exit code, with its remedy."),
        Document("metrics", "Metrics", "Every metric, and which are worth waking somebody for."),
    ),
    "Understand": (
        Document("when_not", "When not to choose it", "Beside Temporal, Restate, DBOS, Celery and a plain queue."),
        Document("states", "States", "Every state, and every reason of a dead letter with its remedy."),
        Document("architecture", "Architecture", "The house, and the road of an event."),
        Document("glossary", "Glossary", "One word for one thing."),
        Document("contributing", "Contributing", "Set up, test, add a column, a page or a setting."),
    ),
}
DOCUMENTS = {document.name: document for document in chain.from_iterable(GROUPS.values())}

HITS_MAX = 20
EXCERPT_CHARACTERS = 220
MARKS = re.compile(r"\]\([^)\s]*\)|[*`\[\]|]+")
HEADING = re.compile(r"#{1,6} +(.+)")


def neighbours(name: str) -> tuple[Document | None, Document | None]:
    """Return the documents before and after one, in the order of the guide."""
    ordered: list[Document | None] = [None, *DOCUMENTS.values(), None]
    place = ordered.index(DOCUMENTS[name])
    return ordered[place - 1], ordered[place + 1]


@cache
def source(name: str) -> str:
    """Return a document as it was written."""
    return file_of(f"{name}.md")


def file_of(name: str) -> str:
    """Return what is in a file beside the documents."""
    return resources.files("replayforge").joinpath("docs", name).read_text(encoding="utf-8")


@cache
def rendered(name: str, base_path: str) -> str:
    """Return a document as HTML: headings can be linked to, and links between documents lead to their pages."""
    markdown = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = markdown.parse(source(name))
    for token, following in pairwise([*tokens, tokens[-1]]):
        adapt(token, following, base_path)
    return str(markdown.renderer.render(tokens, markdown.options, {}))


def adapt(token: Token, following: Token, base_path: str) -> None:
    """Give a heading its anchor, let wide blocks be scrolled by the keyboard, and point links to pages."""
    if token.type == "heading_open":
        token.attrSet("id", anchor(following.content))
    elif token.type in ("table_open", "fence"):
        token.attrSet("tabindex", "0")
    elif token.type == "th_open" and not following.content:
        token.tag = "td"  # a corner without a word heads nothing
    elif following.type == "th_close" and not token.content:
        following.tag = "td"
    for child in token.children or ():
        target, mark, place = str(child.attrGet("href") or "").partition("#")
        if target.endswith((".md", ".json")) and "/" not in target:
            child.attrSet("href", f"{base_path}/guide/{target.removesuffix('.md')}{mark}{place}")


def anchor(heading: str) -> str:
    """Return what a heading goes by in a link: its words in small letters, with hyphens between them."""
    return "-".join("".join(letter if letter.isalnum() else " " for letter in heading.lower()).split())


def search(text: str) -> list[Hit]:
    """Return the passages that have all words of a text; those with more of them in their headings come first."""
    words = text.lower().split()
    if not words:
        return []
    found = [passage for passage in passages() if all(word in searched(passage) for word in words)]
    found.sort(key=lambda passage: -sum(word in passage.heading.lower() for word in words))
    return [Hit(passage, excerpt(passage.text, words)) for passage in found[:HITS_MAX]]


def searched(passage: Passage) -> str:
    """Return what is looked through."""
    return f"{passage.document.title} {passage.heading} {passage.text}".lower()


def excerpt(text: str, words: list[str]) -> str:
    """Return a piece of a text that begins shortly before the first of the words in it."""
    places = [place for word in words if (place := text.lower().find(word)) >= 0]
    start = max(min(places, default=0) - EXCERPT_CHARACTERS // 4, 0)
    start = text.find(" ", start) + 1 if start else 0
    piece = text[start : start + EXCERPT_CHARACTERS]
    return f"{'… ' if start else ''}{piece}{' …' if len(text) > start + len(piece) else ''}"


@cache
def passages() -> list[Passage]:
    """Return all passages of all documents, in the order of the guide."""
    return [passage for document in DOCUMENTS.values() for passage in passages_of(document)]


def passages_of(document: Document) -> Iterator[Passage]:
    """Cut a document at its headings."""
    heading, lines, fenced = "", list[str](), False
    for line in source(document.name).splitlines():
        fenced ^= line.startswith("```")
        if not fenced and (found := HEADING.fullmatch(line)):
            if heading:
                yield passage(document, heading, lines)
            heading, lines = found[1], []
        elif not line.startswith("```") and not set(line) <= set("|- "):
            lines.append(line)
    yield passage(document, heading, lines)


def passage(document: Document, heading: str, lines: list[str]) -> Passage:
    """Return the passage under a heading."""
    return Passage(document, plain(heading), anchor(heading), plain(" ".join(lines)))


def plain(text: str) -> str:
    """Return text without the marks of its format."""
    return " ".join(MARKS.sub(" ", text).split())
