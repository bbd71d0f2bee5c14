"""`fangnetz pause`: wish that nothing is ordered in the whole cluster, for a while or until somebody ends it."""

from __future__ import annotations

from typing import Annotated

import typer

from fangnetz.cli._session import Json, open_session
from fangnetz.cli._span import span_of
from fangnetz.cli._wish import ask, carry
from fangnetz.core.errors import WishRefused
from fangnetz.core.model import WishKind
from fangnetz.core.pause import CLUSTER
from fangnetz.core.units import Instant

app = typer.Typer(add_completion=False)

REASON_MAX = 200


@app.command()
def pause(
    span: Annotated[
        str | None, typer.Option("--for", metavar="SPAN", help="It ends by itself after this: 90s, 30m, 2h, 1d.")
    ] = None,
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="What for; it stands in the alarm.")] = "",
    as_json: Json = False,
) -> None:
    """Order nothing any more: no fence, no start, no stop, no move. Hosts are watched, VMs run on, alarms go on.

    What has begun is brought to its end, and the later of two running copies is held all the same. A host
    that dies meanwhile is recovered only afterwards.
    """
    said = " ".join(reason.split())
    if len(said) > REASON_MAX:
        raise WishRefused(f"--reason has {len(said)} characters: at most {REASON_MAX}")
    for_s = None if span is None else span_of(span, "--for")
    session = open_session()
    until = None
    if for_s is not None:
        with session.asking() as store:
            until = Instant(store.now() + for_s)
    carry(ask(session, WishKind.CLUSTER_PAUSE, CLUSTER, reason=said, until=until), as_json=as_json, wait=False)
