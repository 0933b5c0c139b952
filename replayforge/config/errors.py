"""What is said about a wrong configuration: every mistake at once, each with its key, its place and what is right."""

from collections import Counter
from collections.abc import Iterable, Iterator

from replayforge.domain.errors import Refused


class ConfigError(Refused):
    """The configuration is wrong; `problems` has one sentence for each mistake."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        count = len(self.problems)
        heading = f"The configuration has {count} mistakes:\n  " if count > 1 else ""
        super().__init__(heading + "\n  ".join(self.problems))


def doubled_names(table: str, names: Iterable[str]) -> Iterator[str]:
    """Yield a sentence for each name that a list of tables gives twice."""
    yield from (
        f"{table}: the name {name!r} is given twice." for name, count in sorted(Counter(names).items()) if count > 1
    )
