"""Who acts: the name of the key of the request that is being carried out, for whatever records what people do."""

from contextvars import ContextVar

# Empty where no keys are configured, and for what the daemon does by itself.
acting: ContextVar[str] = ContextVar("acting", default="")


def signed(words: str) -> str:
    """Return what somebody says of himself, with the key that he has shown."""
    name = acting.get()
    return f"{words} (key {name})" if name else words
