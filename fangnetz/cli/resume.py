"""`fangnetz resume`: wish that the cluster be decided on again after `fangnetz pause`."""

from __future__ import annotations

import typer

from fangnetz.cli._session import Json, open_session
from fangnetz.cli._wish import ask, carry
from fangnetz.core.model import WishKind
from fangnetz.core.pause import CLUSTER

app = typer.Typer(add_completion=False)


@app.command()
def resume(as_json: Json = False) -> None:
    """End a pause: the cluster is looked at as it is now, and every proof is still required."""
    carry(ask(open_session(), WishKind.CLUSTER_RESUME, CLUSTER), as_json=as_json, wait=False)
