"""Brings the schema up to date: numbered SQL files, each run once and remembered with its checksum."""

import hashlib
import secrets
import uuid
from importlib import resources

from replayforge.domain.errors import Refused
from replayforge.stores.batches import MetaValue
from replayforge.stores.driver import Batch, Driver, Fetch, Steps

REMEMBERED = """
CREATE TABLE IF NOT EXISTS migrations (version INTEGER PRIMARY KEY, checksum TEXT NOT NULL);
"""


async def migrate(driver: Driver) -> int:
    """Run every migration the store has not seen and return the schema's version.

    Raises Refused when the store was written by a newer version or a migration it has run was changed since.
    """
    await driver.run_script(REMEMBERED)
    done = await driver.read(seen_migrations)
    known = check_seen(done, driver.dialect)
    for version, script in enumerate(known, start=1):
        if version not in done:
            # A number and a hexadecimal digest; in the script itself, so that both commit or neither does.
            remember = f"INSERT INTO migrations (version, checksum) VALUES ({version}, '{digest(script)}');"  # noqa: S608
            # Another daemon may have run it since we looked; the driver looks again where nobody else can.
            done_already = f"SELECT 1 FROM migrations WHERE version = {version}"  # noqa: S608
            await driver.run_script(f"{script}\n{remember}", unless=done_already)
    await driver.write(name_store)
    return len(known)


def check_seen(done: dict[int, str], dialect: str) -> list[str]:
    """Return all scripts of the dialect; raises Refused for a store on which others were run."""
    known = migrations(dialect)
    for version, checksum in done.items():
        if version > len(known):
            raise Refused(f"The store has schema version {version}; this ReplayForge knows {len(known)}. Upgrade it.")
        if digest(known[version - 1]) != checksum:
            raise Refused(
                f"This store was made by another development version: schema migration {version} differs. Go back to"
                " that version, or move the data directory away and begin with an empty one: what it holds is given up."
            )
    return known


def migrations(dialect: str) -> list[str]:
    """Return the scripts of the dialect in order."""
    folder = resources.files(__package__).joinpath("sql", dialect)
    files = sorted((file for file in folder.iterdir() if file.name.endswith(".sql")), key=lambda file: file.name)
    return [file.read_text(encoding="utf-8") for file in files]


def digest(script: str) -> str:
    """Return the checksum a migration is remembered by."""
    return hashlib.sha256(script.encode()).hexdigest()


def name_store() -> Steps[None]:
    """Give the store the name that logs and streams know it by, and the key that signs callback URLs, unless it has."""
    notes = {"store_id": str(uuid.uuid4()), "callback_key": secrets.token_hex(32)}
    yield Batch("insert_meta", [MetaValue(name=name, value=value) for name, value in notes.items()])


def seen_migrations() -> Steps[dict[int, str]]:
    """Fetch version -> checksum of what has been run."""
    rows = yield Fetch("seen_migrations")
    return {row[0]: row[1] for row in rows}
