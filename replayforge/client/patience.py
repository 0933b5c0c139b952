"""A connection that waits for a daemon that starts, or refuses for now, and sends again what was not carried out."""

from collections.abc import Mapping

from replayforge.client.http import JSON, ClientConnection, Problem, Reply, Unreachable
from replayforge.client.retry_budget import RetryBudget, outcome_unknown

TOO_SLOW = "urn:replayforge:too-slow"  # the same question would take as long again


class PatientConnection(ClientConnection):
    """Raises Problem or Unreachable once its retry budget is used up, and at once what will not pass by waiting.

    Nothing is sent again that may have been carried out, but questions to a proxy whose daemon is away.
    """

    def __init__(self, url: str, api_key: str | None, retry_budget: RetryBudget) -> None:
        super().__init__(url, api_key)
        self.retry_budget = retry_budget

    def request(
        self,
        method: str,
        target: str,
        body: bytes | None = None,
        content_type: str = JSON,
        further_headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """Carry out one request."""
        while True:
            try:
                reply = super().request(method, target, body, content_type, further_headers)
            except (Problem, Unreachable) as error:
                asked = method == "GET" and isinstance(error, Problem)
                if getattr(error, "type", "") == TOO_SLOW or (outcome_unknown(error) and not asked):
                    raise
                self.retry_budget.wait(error)
            else:
                self.retry_budget.renew()
                return reply
