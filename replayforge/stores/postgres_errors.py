"""What PostgreSQL and the network say, named by remedy."""

import contextlib
from collections.abc import Iterator

import asyncpg

from replayforge.domain.errors import Corrupt, Refused, Unavailable, Unstorable

DAMAGED = ("XX001", "XX002")  # data_corrupted, index_corrupted
MISSING = ("42P01", "3F000")  # undefined_table, invalid_schema_name
RIVALLED = ("40001", "40P01", "23505")  # serialization_failure, deadlock_detected, unique_violation
# Classes: connection, transaction state, resources (disk full among them), operator intervention, system error, login;
# then lock not available, database missing, read-only.
PASSING = ("08", "25", "53", "57", "58", "28", "55P03", "3D000", "25006")
# A value of a kind, a length or an encoding that the server has no place for, or that breaks a rule of its table; class
# 54 are the limits of the program itself: rows of an index, fields, arrays.
UNSTORABLE = ("22", "23", "54")
ALLOCATION = "invalid memory alloc request"  # beyond 1 GB, which no retry makes smaller; an internal error by its code
HOPELESS = ("28", "3D000", "42501")  # a login or a database that is not there will not come by waiting
# What a pooler that can never serve us says, and the remedy; the code is 08P01, as for one whose server is away.
POOLER_REFUSALS = {
    "unsupported startup parameter": "Set it for the role instead (ALTER ROLE … SET …), not in the store's URL.",
    "statement pooling mode": "Set pool_mode to transaction or session there.",
}


class Rivalled(Unavailable):
    """Another transaction was faster at the same rows; carry this one out again."""


@contextlib.contextmanager
def mapped_errors(place: str) -> Iterator[None]:
    """Let no error of asyncpg's or of the network pass but as one of ours; defects of our own pass as they are."""
    try:
        yield
    except asyncpg.PostgresError as error:
        raise mapped(error, place) from error
    except (OSError, TimeoutError, asyncpg.InternalClientError) as error:
        raise Unavailable(f"{place} does not answer: {str(error) or 'no answer in time'}.") from error
    except asyncpg.InterfaceError as error:
        if isinstance(error, ValueError) or "clos" not in str(error):
            raise
        raise Unavailable(f"{place} does not answer: {error}.") from error


def mapped(error: Exception, place: str) -> Exception:
    """Return our error for one that the server reported."""
    code = sqlstate(error)
    if code.startswith(DAMAGED):
        return Corrupt(f"{place} is damaged: {error}. Restore it from a backup.")
    if code.startswith(MISSING):
        return Corrupt(f"{place} has lost its tables: {error}. It was replaced or dropped; bring it back and restart.")
    if code.startswith(RIVALLED):
        return Rivalled(f"{place} could not carry it out beside others: {error}.")
    if code.startswith(UNSTORABLE) or ALLOCATION in str(error):
        return Unstorable(f"{place} can never take it: {error}.")
    if code.startswith(PASSING) or not code:
        return Unavailable(f"{place} does not answer: {error}.")
    return error


def sqlstate(error: BaseException) -> str:
    """Return the five letters by which SQL knows an error."""
    return str(getattr(error, "sqlstate", None) or "")


def refused(error: BaseException, place: str) -> Refused | None:
    """Return why it makes no sense to wait for the server, or None when it does."""
    cause = error.__cause__
    if isinstance(cause, asyncpg.PostgresError) and sqlstate(cause).startswith(HOPELESS):
        return Refused(f"{place} lets nobody in: {cause}.")
    for words, remedy in POOLER_REFUSALS.items():
        if words in str(cause):
            return Refused(f"{place} is a pooler that cannot be used so: {cause}. {remedy}")
    return None
