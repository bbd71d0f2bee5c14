"""`fangnetz operation`: the journal as it stands, open matters first. Only reads."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Group, RenderableType
from rich.text import Text

from fangnetz.cli._console import QUIET, Fields, Row, Rows, clock, out, say, span, state_cell, title
from fangnetz.cli._items import operation_item
from fangnetz.cli._json import print_item, print_list
from fangnetz.cli._session import Json, open_session
from fangnetz.cli._tables import operations_table
from fangnetz.cli._wish import ask, carry
from fangnetz.core.errors import WishRefused
from fangnetz.core.model import WishKind
from fangnetz.core.operations import ALL_OTHERS, Operation, OperationState, Step
from fangnetz.core.units import OperationId

app = typer.Typer(no_args_is_help=True, help="See operations and their steps; cancel a move.")


@app.command("list")
def list_(
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000, help="So many of the latest.")] = 50,
    as_json: Json = False,
) -> None:
    """Show open operations and the latest closed ones, newest first."""
    session = open_session()
    with session.asking() as store:
        found, now = store.operations(limit), store.now()
    if as_json:
        print_list(operation_item(operation) for operation in found)
    elif found:
        out().print(operations_table(sorted(found, key=lambda op: op.state is not OperationState.OPEN), now))
    else:
        say(out(), "No operation yet.", QUIET)


@app.command("show")
def show(identity: Annotated[str, typer.Argument(metavar="ID")], as_json: Json = False) -> None:
    """Show one operation with every step: who did it, how it ended, and the evidence."""
    session = open_session()
    with session.asking() as store:
        operation, now = store.operation(OperationId(identity)), store.now()
    if operation is None:
        raise WishRefused(f"the journal holds no operation {identity}; `fangnetz operation list` shows what it holds")
    if as_json:
        print_item(operation_item(operation))
    else:
        out().print(_page(operation, now))


@app.command("cancel")
def cancel(identity: Annotated[str, typer.Argument(metavar="ID")], as_json: Json = False) -> None:
    """End a move under way: the VM stays where it runs. Nothing else is cancelled: it would leave VMs down."""
    session = open_session()
    carry(ask(session, WishKind.OPERATION_CANCEL, identity), as_json=as_json, wait=False)


def _page(operation: Operation, now: float) -> RenderableType:
    state = state_cell(operation.state.value)
    end = operation.closed_at if operation.closed_at is not None else now
    state.append(f"  {span(end - operation.opened_at)}", style=QUIET)
    pairs: list[tuple[str, str | Text]] = [
        ("state", state),
        ("subject", operation.subject),
        ("opened", clock(operation.opened_at, day=True)),
        ("reason", operation.reason),
    ]
    if operation.closed_at is not None:
        pairs.append(("closed", clock(operation.closed_at, day=True)))
    if operation.sentence:
        pairs.append(("outcome", operation.sentence))
    # The journal holds steps in the order they were added; a join ends the story.
    rows = [_row(step, now) for step in sorted(operation.steps, key=lambda step: step.after == (ALL_OTHERS,))]
    return Group(
        title(operation.id, operation.kind.value),
        Fields(pairs),
        "",
        title("Steps"),
        Rows(("step", "state", "try", "began", "took", "by"), rows),
    )


def _row(step: Step, now: float) -> Row:
    took = "–"
    if step.started_at:
        took = span((step.ended_at if step.settled and step.ended_at else now) - step.started_at)
    note = "; ".join(each for each in (step.sentence, step.progress.sentence if step.progress else "") if each)
    if step.order is not None:
        order = f"to {step.order.host}, generation {step.order.generation}"
        note = f"{note} ({order})" if note else order
    return Row(
        cells=(
            step.key,
            state_cell(step.state.value),
            str(step.attempt) if step.attempt else "–",
            clock(step.started_at),
            took,
            step.executor or "–",
        ),
        note=note,
    )
