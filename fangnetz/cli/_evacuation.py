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
from fangnetz.core.evacuation import EvacuationPlan, Stops, fallback_of, plan_evacuation, vms_on
from fangnetz.core.model import HostState
from fangnetz.core.moving import Move
from fangnetz.core.operations import OperationKind
from fangnetz.core.policy import Fallback
from fangnetz.core.units import HostId, VmId

_LEAVING = (OperationKind.MIGRATE, OperationKind.RELOCATE, OperationKind.STOP)
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
        print_item(plan_item(snapshot, found))
    else:
        out().print(plan_page(snapshot, found))


def plan_item(snapshot: Snapshot, found: EvacuationPlan) -> Item:
    return {
        "preview": {
            "host": found.host,
            "moves": [
                {
                    "vm": m.vm,
                    "from": m.source,
                    "to": m.target,
                    "live": m.live,
                    "evacuate_fallback": fallback_of(snapshot.view.vms[m.vm].spec, snapshot.policy).value,
                    "because": m.because,
                }
                for m in found.moves
            ],
            "stops": [{"vm": s.vm, "because": s.because} for s in found.stops],
            "stays": [{"vm": s.vm, "because": s.because} for s in found.stays],
        }
    }


def plan_page(snapshot: Snapshot, found: EvacuationPlan) -> RenderableType:
    rows = [
        Row(cells=(m.vm, f"{m.source} → {m.target}", _size(snapshot, m.vm)), note=_way(snapshot, m))
        for m in found.moves
    ]
    rows += [
        Row(cells=(s.vm, Text("is stopped", style=BAD), _size(snapshot, s.vm)), note=_until(s, found.host))
        for s in found.stops
    ]
    rows += [
        Row(cells=(s.vm, Text("stays", style=BAD), _size(snapshot, s.vm)), note=s.because, note_style="")
        for s in found.stays
    ]
    limits = f"at most {snapshot.policy.moves_per_host_max} leave at once"
    if not rows:
        return Group(title(f"Emptying {found.host}"), Text("  nothing runs there", style=QUIET))
    line = Text("● ", style=BAD if found.stays or found.stops else GOOD)
    down = [move.vm for move in found.moves if not move.live]
    line.append(f"{len(found.moves)} of {len(rows)} VMs would leave")
    if down:
        line.append(f", and {', '.join(down)} would be down for that")
    elif not found.stops:
        line.append(", and nobody would notice")
    if found.stops:
        line.append(f"; {len(found.stops)} would be stopped until {found.host} is activated", style=BAD)
    if found.stays:
        line.append(f"; {len(found.stays)} would stay and run on", style=BAD)
    table = Rows(("VM", "way", "memory"), rows)
    return Group(title(f"Emptying {found.host}", limits), table, "", line)


def _way(snapshot: Snapshot, move: Move) -> str:
    """Return how it would leave, why there, and what becomes of it if it does not move while it runs."""
    if not move.live:
        return f"is stopped, moved and started; {move.because}"
    fallback = fallback_of(snapshot.view.vms[move.vm].spec, snapshot.policy)
    return f"{move.because}; if it cannot move live: {fallback_said(fallback, move.source)}"


def fallback_said(fallback: Fallback, host: HostId) -> str:
    """Return in words what becomes of a VM that does not move while it runs when its host is emptied."""
    match fallback:
        case Fallback.STAY:
            return "it stays and runs"
        case Fallback.RELOCATE:
            return "it is stopped, moved and started"
        case Fallback.STOP:
            return f"it is stopped until {host} is activated"


def _until(stop: Stops, host: HostId) -> str:
    return f"until {host} is activated: {stop.because}"


def _size(snapshot: Snapshot, vm: VmId) -> str:
    return f"{snapshot.view.vms[vm].spec.memory_mib} MiB"


def follow_evacuation(session: Session, host: HostId, timeout_s: float) -> Ended:
    """Return how it went until the host is in maintenance, or until what is left stays for now."""
    most, stands = 0, 0.0
    said = f"{host} is not empty after {timeout_s:g} s"
    with counted(session, timeout_s) as (looks, meter):
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
                doc = view.host_docs.get(host)
                down = f"; stopped until it is activated: {', '.join(doc.stopped)}" if doc and doc.stopped else ""
                return True, f"{host} is empty and in maintenance{down}"
            why = next((a.sentence for a in alarms if (a.kind, a.subject) == ("evacuation_waits", host)), "")
            moving = any(op.kind in _LEAVING for op in leaving)
            if not why or moving:
                stands = waited
                continue
            said = why
            if waited - stands > STANDS_S:
                return False, why
    return False, said
