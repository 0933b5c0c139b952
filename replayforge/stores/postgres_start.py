"""What a PostgreSQL server is asked before it is trusted with acknowledged work, and who stands in front of it."""

from asyncio import get_running_loop, sleep
from dataclasses import replace

from replayforge.domain.errors import Refused, Unavailable
from replayforge.stores.postgres_errors import mapped_errors, refused
from replayforge.stores.postgres_link import PostgresAddress

VERSION_MIN = 130_000
LOOK_SECONDS = 0.2
SETTINGS = """
SELECT current_setting('server_version_num')::int, current_setting('server_version'), current_setting('fsync'),
    pg_is_in_recovery(), pg_backend_pid(), current_setting('server_encoding'), current_database()
"""


async def usable(address: PostgresAddress, wait_seconds: float) -> PostgresAddress:
    """Wait a while for a server that is starting and return how to use it; raises Refused when it cannot be used."""
    deadline = get_running_loop().time() + wait_seconds
    while True:
        try:
            return await examined(address)
        except Unavailable as error:
            if (refusal := refused(error, address.place)) is not None:
                raise refusal from error
            if get_running_loop().time() > deadline:
                raise Refused(f"{error} Waited {wait_seconds:g} s for it.") from error
        await sleep(LOOK_SECONDS)


async def examined(address: PostgresAddress) -> PostgresAddress:
    """Return the address, as one behind a pooler where it is; raises Refused for a server that must not be trusted.

    The server could lose what it has acknowledged, or is too old, or cannot be written.
    """
    # Nobody knows yet who answers, so nothing is left prepared; a transaction, because everything later is one.
    cautious = replace(address, pooler=True)
    with mapped_errors(address.place):
        connection = await cautious.connect()
        try:
            async with connection.transaction(readonly=True):
                number, version, fsync, standby, process, encoding, database = await connection.fetchrow(SETTINGS)
            introduced_as = connection.get_server_pid()
        finally:
            connection.terminate()
    if number < VERSION_MIN:
        raise Refused(f"PostgreSQL {version} is too old: 13 or newer is needed.")
    if fsync != "on":
        raise Refused(f"{address.place} runs with fsync = off and would lose work in a crash; turn it on.")
    if encoding != "UTF8":
        raise Refused(
            f"The database {database} of {address.place} has the encoding {encoding} and cannot hold every text. Make"
            " one that can: CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0."
        )
    if standby:
        raise Refused(f"{address.place} is a standby that cannot be written; name the primary.")
    # A pooler introduces itself by a number of its own, not by that of whichever process answers.
    return cautious if process != introduced_as else address
