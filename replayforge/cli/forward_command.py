"""`forward`: a daemon's events sent on to an address of one's own, as they came."""

import click

from replayforge.cli.options import moment, with_impatient_client
from replayforge.client.forwarding import LogFollower, Receiver, is_wanted, outgoing
from replayforge.client.http import ClientConnection
from replayforge.client.terminal import complain, plain
from replayforge.domain.clock import parse_time


@click.command()
@click.option(
    "--to", "target", required=True, metavar="URL", help="Where to send them, such as http://localhost:3000/hook."
)
@click.option("--type", "event_type", help='Only events of this type, with "*".')
@click.option("--since", callback=moment, help='Begin with those of then: RFC 3339, or "1h".  [default: only new ones]')
@click.option("--once", is_flag=True, help="End after those that are there, and do not wait for new ones.")
@with_impatient_client
def forward(client: ClientConnection, *, target: str, event_type: str | None, since: str | None, once: bool) -> None:
    """Forward a daemon's events to a URL of your own, unchanged.

    Those that come from now on, and with --since earlier ones before them, in their order. A webhook is sent with its
    raw body and the headers that were kept, any other event with its payload. What the daemon makes of them is not
    touched. They are read from the daemon's own log; what handlers send is left out. An address that does not answer
    is waited for; whatever it answers, the next one follows. Ctrl+C ends it.
    """
    follower, receiver = LogFollower(client, complain), Receiver(target, complain)
    _, last = follower.bounds()
    try:
        after = last if since is None else follower.offset_at(parse_time(since))
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
    for event in follower.records(after, until=last if once else None):
        if is_wanted(event, event_type):
            status = receiver.send(outgoing(event))
            click.echo(f"{status}  {plain(event.event_type)}  {event.id}")
