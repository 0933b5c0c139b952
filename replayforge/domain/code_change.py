"""What new code would do otherwise than the journal of an open run remembers. Values and words only."""

from enum import StrEnum

import msgspec


class Fate(StrEnum):
    """What becomes of an open run under new code; the words are those of the API, what is decided last weighs most."""

    CONTINUES = "continues"
    INSERTED = "inserted"
    VANISHED = "vanished"
    ARGUMENTS_CHANGED = "arguments_changed"
    KIND_CHANGED = "kind_changed"
    RAISES = "raises"
    NO_HANDLER = "no_handler"
    UNDECIDABLE = "undecidable"  # it has effects outside of steps, does not end, or is another on every pass


# What the gate holds: code that does not do again what is recorded could do it twice, or never.
BREAKING = frozenset({Fate.VANISHED, Fate.ARGUMENTS_CHANGED, Fate.KIND_CHANGED, Fate.RAISES, Fate.NO_HANDLER})


class CodeChange(msgspec.Struct, frozen=True, omit_defaults=True):
    """The first difference between what a run has recorded and what the code does: at which step, before and after."""

    fate: Fate
    step: str = ""
    kind: str = ""
    before: str = ""
    after: str = ""

    @property
    def words(self) -> str:
        """Say the difference in a sentence."""
        named = f"the {self.kind or 'step'} {self.step!r}"
        if self.fate is Fate.VANISHED:
            return f"The code does not come to {named} any more, which is recorded{self.instead}."
        if self.fate is Fate.ARGUMENTS_CHANGED:
            return f"The code calls {named} with other arguments: {self.before} before, {self.after} now."
        if self.fate is Fate.KIND_CHANGED:
            return f"What is recorded as {self.before} {self.step!r} is {self.after} in the code now."
        if self.fate is Fate.RAISES:
            return f"The code raises {self.after} before it comes to where the run stands."
        if self.fate is Fate.NO_HANDLER:
            return f"The code has no handler for events of type {self.before!r}."
        if self.fate is Fate.UNDECIDABLE:
            return f"Nothing can be said of the code: {self.after}."
        if self.fate is Fate.INSERTED:
            return f"The code begins {named} next, which is not recorded."
        return "The code comes to where the run stands."

    @property
    def instead(self) -> str:
        """Say in a clause what the code does in place of a step that it does not come to any more."""
        return f"; instead it {self.after}" if self.after else ""


CONTINUES = CodeChange(Fate.CONTINUES)


def encoded(change: CodeChange) -> str:
    """Write a difference as the store keeps it; equal ones are equal texts."""
    return msgspec.json.encode(change).decode()


decode_change = msgspec.json.Decoder(CodeChange).decode
