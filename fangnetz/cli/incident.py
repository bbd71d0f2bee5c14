"""`fangnetz incident`: a host's failure and all that followed, its timeline drawn as bars. Only reads."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Group, RenderableType
from rich.text import Text

from fangnetz.cli._console import BUSY, QUIET, Fields, Row, Rows, age, clock, out, say, span, state_cell, title
from fangnetz.cli._items import incident_item
from fangnetz.cli._json import print_item, print_list
from fangnetz.cli._session import Json, open_session
from fangnetz.cli._timeline import Timeline
from fangnetz.core.errors import WishRefused
from fangnetz.core.incidents import Incident, VmOutcome, incident_of, incidents
from fangnetz.core.operations import OperationKind, OperationState
from fangnetz.core.units import OperationId

app = typer.Typer(no_args_is_help=True, help="See host failures and all that followed.")

KEPT = 1000
"""The journal keeps no more closed operations than this."""


@app.command("list")
def list_(
    limit: Annotated[int, typer.Option("--limit", min=1, max=KEPT, help="So many of the latest.")] = 50,
    as_json: Json = False,
) -> None:
    """Show incidents, newest first: which host, how it ended, how long its VMs were away."""
    session = open_session()
    with session.asking() as store:
        operations, now = store.operations(KEPT), store.now()
    found = incidents(operations)[:limit]
    if as_json:
        print_list(incident_item(incident) for incident in found)
    elif found:
        rows = [_row(incident, now) for incident in found]
        out().print(Rows(("incident", "host", "state", "ago", "VMs", "recovered in"), rows))
    else:
        say(out(), "No incident yet.", QUIET)


def _row(incident: Incident, now: float) -> Row:
    running = sum(1 for vm in incident.vms if vm.outcome is VmOutcome.RUNNING)
    recovered = incident.recovered_at
    return Row(
        cells=(
            incident.id,
            incident.host,
            state_cell(incident.state.value),
            age(incident.opened_at, now),
            f"{running}/{len(incident.vms)}",
            "–" if recovered is None else span(recovered - incident.began_at),
        ),
        note=incident.reason if incident.state is OperationState.OPEN else incident.sentence,
    )


@app.command("show")
def show(
    identity: Annotated[str, typer.Argument(metavar="[ID]", help="The latest one if left out.")] = "",
    as_json: Json = False,
) -> None:
    """Show one incident: timeline, evidence, proof, and what became of each VM."""
    session = open_session()
    with session.asking() as store:
        operations, now = store.operations(KEPT), store.now()
        failover = store.operation(OperationId(identity)) if identity else None
    if not identity:
        failover = next((op for op in operations if op.kind is OperationKind.FAILOVER), None)
        if failover is None:
            raise WishRefused("there is no incident yet")
    if failover is None or failover.kind is not OperationKind.FAILOVER:
        raise WishRefused(f"the journal holds no incident {identity}; `fangnetz incident list` shows what it holds")
    incident = incident_of(failover, operations)
    if as_json:
        print_item(incident_item(incident))
    else:
        out().print(page(incident, now))


def page(incident: Incident, now: float) -> RenderableType:
    """Return everything `incident show` shows."""
    state = state_cell(incident.state.value)
    if incident.recovered_at is not None:
        took = incident.recovered_at - incident.began_at
        state.append(f"  all VMs ran {took:.1f} s after the last sign of life", style=QUIET)
    pairs: list[tuple[str, str | Text]] = [
        ("state", state),
        ("boot", incident.incarnation or "–"),
        ("began", clock(incident.began_at, day=True)),
        ("reason", incident.reason),
    ]
    if incident.sentence:
        pairs.append(("outcome", incident.sentence))
    parts: list[RenderableType] = [title(incident.host, incident.id), Fields(pairs)]
    parts += ["", title("Timeline", "seconds since the last sign of life"), Timeline(incident, now)]
    parts += ["", title("Evidence"), Fields([("·", sentence) for sentence in incident.evidence])]
    if incident.proof is not None:
        lines: list[tuple[str, str | Text]] = [
            (incident.proof.kind.value, incident.proof.sentence),
            *((" ", answer) for answer in incident.proof.answers),
        ]
        parts += ["", title("Proof"), Fields(lines)]
    else:
        parts += ["", title("Proof"), Fields([("", Text("none: no VM was started elsewhere", style=BUSY))])]
    if incident.vms:
        parts += ["", title("VMs"), _vms(incident)]
    return Group(*parts)


def _vms(incident: Incident) -> Rows:
    rows = [
        Row(
            cells=(
                vm.vm,
                state_cell(vm.outcome.value),
                f"{vm.source} → {vm.target or '–'}",
                "–" if vm.running_at is None else f"+{vm.running_at - incident.began_at:.1f}s",
            ),
            note=vm.reason,
        )
        for vm in incident.vms
    ]
    return Rows(("VM", "outcome", "way", "running"), rows)
