"""How events get their names: the same key names the same event on every daemon, with no look-up."""

import hashlib
import random

KEY_NAMESPACE = b"replayforge/key/1"
REUSED_NAMESPACE = b"replayforge/reused/1"
SUBSCRIBER_NAMESPACE = b"replayforge/subscriber/1"
SOURCE_NAMESPACE = b"replayforge/source/1"
SCHEDULE_NAMESPACE = b"replayforge/schedule/1"

# Where an RFC 9562 UUID says what kind it is, among what is random in it.
VERSION_7, VARIANT, VARIANT_MASK = 7 << 76, 1 << 63, 3 << 62

# Seeded once from the system's entropy. Asking the system for each id gives the interpreter's lock away, and the loop
# then waits for the writer threads to return it: a tenth of a millisecond an event under load.
chance = random.Random()


def event_id_for_key(application_name: str, idempotency_key: str) -> str:
    """Return the UUIDv8 that (application, key) always has; the parts are length-prefixed, so no two pairs collide."""
    return hashed_id(KEY_NAMESPACE, application_name.encode(), idempotency_key.encode())


def event_id_for_reuse(event_id: str, log_id: str, log_offset: int) -> str:
    """Return the id of the row that a record gets whose key was already used for other content."""
    return hashed_id(REUSED_NAMESPACE, event_id.encode(), log_id.encode(), str(log_offset).encode())


def source_event_id(source: str, delivery_key: str) -> str:
    """Return the id that a delivery of a source always has; no key that a client chooses can have the same."""
    return hashed_id(SOURCE_NAMESPACE, source.encode(), delivery_key.encode(errors="surrogateescape"))


def subscriber_event_id(parent_id: str, subscriber: str) -> str:
    """Return the id of the child event that a subscriber gets, whichever run of its parent sends it."""
    return hashed_id(SUBSCRIBER_NAMESPACE, parent_id.encode(), subscriber.encode())


def schedule_event_id(schedule: str, slot: str) -> str:
    """Return the id that the event of a slot of a schedule always has, whichever daemon makes it."""
    return hashed_id(SCHEDULE_NAMESPACE, schedule.encode(), slot.encode())


def new_event_id(now_us: int) -> str:
    """Return a fresh UUIDv7 (RFC 9562): 48 bits of milliseconds, then 74 random bits."""
    random = chance.getrandbits(76) & ~VARIANT_MASK
    return hyphenated(f"{now_us // 1000 << 80 | VERSION_7 | random | VARIANT:032x}")


def new_request_id() -> str:
    """Return 16 hexadecimal digits to tell one request from the others."""
    return f"{chance.getrandbits(64):016x}"


def hashed_id(*parts: bytes) -> str:
    """Return a UUIDv8 (RFC 9562) made of 122 bits of the SHA-256 of the length-prefixed parts."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(4, "big"))
        digest.update(part)
    digits = digest.hexdigest()
    variant = "89ab"[int(digits[16], 16) & 3]
    return hyphenated(f"{digits[:12]}8{digits[13:16]}{variant}{digits[17:32]}")


def to_bytes(event_id: str) -> bytes:
    """Return the 16 bytes of an event id, the key of its record in the log."""
    return bytes.fromhex(event_id.replace("-", ""))


def from_bytes(key: bytes) -> str:
    """Return the event id whose 16 bytes these are."""
    return hyphenated(key.hex())


def hyphenated(digits: str) -> str:
    """Write 32 hexadecimal digits in the usual form of a UUID."""
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
