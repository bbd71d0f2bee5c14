"""What an evacuation would do, and how one goes: the preview's table, and the follower of `host evacuate --wait`."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.text import Text

from fangnetz.cli._console import BAD, GOOD, QUIET, Row, Rows, out, title
from fangnetz.cli._follow import Ended, counted
from fangnetz.cli._json import Item, print_item
from fangnetz.cli._moves import on_the_move
from fangnetz.cli._session import Session
from fangnetz.cli._snapshot import Snapshot
from fangnetz.core.errors import StoreUnreachable, WishRefused
from fangnetz.core.evacuation import EvacuationPlan, plan_evacuation, vms_on
from fangnetz.core.model import HostState
from fangnetz.core.moving import Move
from fangnetz.core.operations import OperationKind
from fangnetz.core.units import HostId, VmId

STANDS_S = 3.0
"""What is left for so long, with nothing on its way, is left for now: a tick looks every second."""


def plan(snapshot: Snapshot, host: HostId) -> EvacuationPlan:
    """Return where each VM would go. WishRefused while no controller watches: then nobody knows what is well."""
    if snapshot.watch is None:
        raise WishRefused(f"there is no preview: {snapshot.unwatched}")
    return plan_evacuation(host, snapshot.view, snapshot.watch, snapshot.verdicts, snapshot.policy)


def show_plan(snapshot: Snapshot, host: HostId, *, as_json: bool) -> None:
    """Print who would go where, and who could not."""
    found = plan(snapshot, host)
    if as_json:
        print_item(plan_item(found))
    else:
        out().print(plan_page(snapshot, found))


def plan_item(found: EvacuationPlan) -> Item:
    return {
        "preview": {
            "host": found.host,
            "moves": [
                {"vm": m.vm, "from": m.source, "to": m.target, "live": m.live, "because": m.because}
                for m in found.moves
            ],
            "stays": [{"vm": s.vm, "because": s.because} for s in found.stays],
        }
    }


def plan_page(snapshot: Snapshot, found: EvacuationPlan) -> RenderableType:
    rows = [Row(cells=(m.vm, f"{m.source} → {m.target}", _size(snapshot, m.vm)), note=_way(m)) for m in found.moves] + [
        Row(cells=(s.vm, Text("stays", style=BAD), _size(snapshot, s.vm)), note=s.because, note_style="")
        for s in found.stays
    ]
    limits = f"at most {snapshot.policy.moves_per_host_max} leave at once"
    if not rows:
        return Group(title(f"Emptying {found.host}"), Text("  nothing runs there", style=QUIET))
    line = Text("● ", style=BAD if found.stays else GOOD)
    down = [move.vm for move in found.moves if not move.live]
    line.append(f"{len(found.moves)} of {len(rows)} VMs would leave, and ")
    line.append(f"{', '.join(down)} would be down for that" if down else "nobody would notice")
    if found.stays:
        line.append(f"; {len(found.stays)} would stay and run on", style=BAD)
    table = Rows(("VM", "way", "memory"), rows)
    return Group(title(f"Emptying {found.host}", limits), table, "", line)


def _way(move: Move) -> str:
    """Return how it would leave, and why there."""
    return move.because if move.live else f"is stopped, moved and started; {move.because}"


def _size(snapshot: Snapshot, vm: VmId) -> str:
    return f"{snapshot.view.vms[vm].spec.memory_mib} MiB"


def follow_evacuation(session: Session, host: HostId, timeout_s: float) -> Ended:
    """Return how it went until the host is in maintenance, or until what is left stays for now."""
    most, stands = 0, 0.0
    said = f"{host} is not empty after {timeout_s:g} s"
    with counted(timeout_s) as (looks, meter):
        for waited in looks:
            try:
                with session.asking() as store:
                    view, alarms = store.view(session.hosts, None), store.alarms()
            except StoreUnreachable:
                continue
            record, left = view.host_records.get(host), vms_on(host, view)
            most = max(most, len(left))
            leaving = [op for op in view.operations.values() if op.subject in left]
            words = f"{most - len(left)} of {most} VMs have left {host}"
            meter.show(most - len(left), max(1, most), words, on_the_move(leaving))
            if record is not None and record.state is HostState.MAINTENANCE and not left:
                return True, f"{host} is empty and in maintenance"
            why = next((a.sentence for a in alarms if (a.kind, a.subject) == ("evacuation_waits", host)), "")
            moving = any(op.kind in (OperationKind.MIGRATE, OperationKind.RELOCATE) for op in leaving)
            if not why or moving:
                stands = waited
                continue
            said = why
            if waited - stands > STANDS_S:
                return False, why
    return False, said
