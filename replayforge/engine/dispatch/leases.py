"""The table of leases: what this process holds, how old each lease is, and which claims are still under way."""

from collections.abc import Collection

import msgspec

from replayforge.domain.clock import Clock
from replayforge.domain.event import ClaimedEvent, Lease

# A lease that could not be renewed for so much of its length is given up, long before anybody else may take it over.
DOUBT_SHARE = 2 / 3


class ClaimUnderWay(msgspec.Struct):
    """A claim under way: the store may have granted it already. Whatever it takes was surely ours at `sure_at`."""

    begun_at: float
    sure_at: float

    def renew(self, at: float) -> None:
        """Note that whatever it takes was surely ours at a later time."""
        self.sure_at = at


class Hold(msgspec.Struct):
    """A lease: when it was surely ours last, when its handler began, and whether somebody else is known to have it."""

    route: str
    sure_at: float
    begun_at: float | None = None
    lost: bool = False

    def renew(self, at: float) -> None:
        """Note that it was surely ours at a later time."""
        self.sure_at = at


class Leases:
    """Every lease of this process, from the moment its claim is asked for until what became of it is committed.

    The daemon's loop writes here; the heartbeat's thread reads, and notes what it renewed. Ages are measured on a clock
    that goes on while the machine sleeps, from before the store was asked: others count theirs from later. Where no
    other process can take anything over (`lease_seconds` is None) no lease grows too old.
    """

    def __init__(self, clock: Clock, lease_seconds: float | None) -> None:
        self.clock = clock
        self.lease_seconds = lease_seconds
        self.held: dict[Lease, Hold] = {}
        self.claims: dict[int, ClaimUnderWay] = {}

    # On the daemon's own loop

    def begin_claim(self) -> ClaimUnderWay:
        """Have a claim under way, from before the store is asked until `end_claim`, once what it gave is booked."""
        now = self.clock.elapsed()
        claim = ClaimUnderWay(now, now)
        self.claims[id(claim)] = claim
        return claim

    def end_claim(self, claim: ClaimUnderWay) -> None:
        """Note that a claim is over, whatever came of it."""
        del self.claims[id(claim)]

    def book(self, claimed: ClaimedEvent, claim: ClaimUnderWay | None = None) -> None:
        """Enter what a claim has taken."""
        sure_at = self.clock.elapsed() if claim is None else claim.sure_at
        self.held[claimed.lease] = Hold(claimed.event.route, sure_at)

    def begin(self, lease: Lease) -> bool:
        """Note that the handler begins now; False when it must not, since somebody else may have the event by now."""
        hold = self.held.get(lease)
        now = self.clock.elapsed()
        if hold is None or hold.lost or (self.lease_seconds is not None and self.is_doubtful(hold, now)):
            return False
        hold.begun_at = now
        return True

    def end(self, lease: Lease) -> None:
        """Note that the handler has ended: its result is kept, however long the store takes to hear of it."""
        if (hold := self.held.get(lease)) is not None:
            hold.begun_at = None

    def resume(self, lease: Lease) -> None:
        """Note that the handler, which waited for a commit, has its whole time again."""
        if (hold := self.held.get(lease)) is not None:
            hold.begun_at = self.clock.elapsed()

    def forget(self, *leases: Lease) -> None:
        """Strike out leases, once what became of them is committed, or left to the sweep."""
        for lease in leases:
            self.held.pop(lease, None)

    def any_claim_since(self, at: float) -> bool:
        """Tell whether a claim that began by then is still under way, so that it may have taken what was seen then."""
        return any(claim.begun_at <= at for claim in self.claims.values())

    # On any thread

    def lose(self, leases: Collection[Lease]) -> None:
        """Note that these must not begin any more."""
        for lease in leases:
            if (hold := self.held.get(lease)) is not None:
                hold.lost = True

    def is_doubtful(self, hold: Hold, now: float) -> bool:
        """Tell whether a lease has not been renewed for so long that it is not to be relied on."""
        return self.lease_seconds is not None and now - hold.sure_at > self.lease_seconds * DOUBT_SHARE

    def doubtful(self, now: float) -> list[Lease]:
        """Return the leases that could not be renewed in time."""
        return [lease for lease, hold in self.held.copy().items() if self.is_doubtful(hold, now)]

    def overdue_claims(self, before: float) -> list[ClaimUnderWay]:
        """Return the claims under way since before a time."""
        return [claim for claim in self.claims.copy().values() if claim.begun_at < before]
