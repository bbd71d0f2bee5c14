"""The next thing to do in a roll, from what was done and what is seen. It asks what is so, never what should be by now.

One look, one act. Whoever carries it out writes down what came of it and looks again; nothing here waits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from fangnetz.core.detector import Finding, heard
from fangnetz.core.evacuation import vms_on
from fangnetz.core.model import HostState, HypervisorHealth
from fangnetz.core.operations import OperationKind
from fangnetz.core.roll.begin import plan_wave, stuck, waves
from fangnetz.core.roll.doubts import doubt, state_of, unrest
from fangnetz.core.roll.values import Commanded, Roll, Seen, Stage, Turn
from fangnetz.core.units import HostId, Incarnation, Instant

UNREST_S = 30.0
"""A late report or a guest that starts again has passed by then; what has not is a doubt."""
STANDS_S = 3.0
"""What a controller says for so long, with nothing on its way, is so for now: it looks every second."""
STEADY_S = 20.0
"""A command may return before what it began on the host takes it down: a host in the same boot is back once it was well
for so long. `reboots` needs no such guess."""
STEADY_ANEW_S = 3.0
"""The same in another boot: it has been down already."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    sentence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Keep:
    """Write the roll down, then look again."""

    roll: Roll
    sentence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Evacuate:
    """Ask for these hosts to be emptied, all before any answer is waited for."""

    hosts: tuple[HostId, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Write the roll down, which says that the command is begun; then run it for `host`."""

    roll: Roll
    host: HostId


@dataclass(frozen=True, slots=True, kw_only=True)
class Activate:
    """Ask for these hosts to take VMs again, and for their own to come home."""

    hosts: tuple[HostId, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    because: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Finish:
    """Every host had its turn."""


Act = Wait | Keep | Evacuate | Run | Activate | Stop | Finish


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """What has been so since when, over the looks of one command; another one begins with none of it."""

    unrest_at: Instant | None = None
    stands_at: Mapping[HostId, Instant] = field(default_factory=dict)
    """Hosts of which a controller says that nothing more moves."""
    well_at: Mapping[HostId, tuple[Incarnation, Instant]] = field(default_factory=dict)
    """Hosts that are back: the boot, and since when it has been well at every look."""


def next_act(roll: Roll, pace: Pace, seen: Seen) -> tuple[Pace, Act]:
    """Return what to do now, and the pace to hand in at the next look."""
    now = seen.view.now
    why = doubt(roll, seen)
    if why:
        return pace, Stop(because=why)
    restless = unrest(roll, seen)
    if restless:
        since = now if pace.unrest_at is None else pace.unrest_at
        if now - since > UNREST_S:
            return pace, Stop(because=f"for {UNREST_S:g} s, {restless}")
        return replace(pace, unrest_at=since, stands_at={}, well_at={}), Wait(sentence=restless)
    pace = replace(pace, unrest_at=None)
    if not roll.in_hand:
        return pace, _next_wave(roll, seen)
    stage = min((turn.stage for turn in roll.in_hand), key=list(Stage).index)
    turns = tuple(turn for turn in roll.in_hand if turn.stage is stage)
    match stage:
        case Stage.EMPTYING:
            return _empty(roll, turns, pace, seen)
        case Stage.COMMAND:
            return pace, _command(roll, turns[0], seen)
        case Stage.RETURN:
            return _return(roll, turns, pace, seen)
        case _:
            return _fill(roll, turns, pace, seen)


def _next_wave(roll: Roll, seen: Seen) -> Act:
    left = waves(roll)
    if not left:
        return Finish()
    cannot = stuck(plan_wave(left[0], seen))
    if cannot:
        return Stop(because="; ".join(cannot))
    turns = [Turn(host=host, vms=vms_on(host, seen.view), since=seen.view.now) for host in left[0]]
    return Keep(roll=roll.put(*turns), sentence=f"the turn of {' and '.join(left[0])} begins")


# --- emptying ----------------------------------------------------------------------------------------------------


def _empty(roll: Roll, turns: tuple[Turn, ...], pace: Pace, seen: Seen) -> tuple[Pace, Act]:
    now = seen.view.now
    left = {turn.host: vms_on(turn.host, seen.view) for turn in turns}
    unasked = tuple(turn.host for turn in turns if not turn.asked and not _is_emptied(turn.host, seen))
    if unasked:
        cannot = stuck(plan_wave(tuple(turn.host for turn in turns), seen))
        return pace, Stop(because="; ".join(cannot)) if cannot else Evacuate(hosts=unasked)
    for turn in turns:
        if not _is_emptied(turn.host, seen):
            return pace, Stop(because=f"{turn.host} is not being emptied any more: somebody activated it")
    empty = [turn for turn in turns if _is_empty(turn.host, seen)]
    if empty:
        ahead = [replace(turn, stage=Stage.COMMAND, since=now, asked=False) for turn in empty]
        names = " and ".join(turn.host for turn in empty)
        return pace, Keep(roll=roll.put(*ahead), sentence=f"{names} is empty and in maintenance")
    for turn in turns:
        why = _alarm("evacuation_waits", turn.host, seen)
        pace = _standing(pace, turn.host, bool(why) and not _moving(left[turn.host], seen), now)
        if now - pace.stands_at.get(turn.host, now) > STANDS_S:
            return pace, Stop(because=why)
        if now - turn.since > roll.limits.moves_s:
            names = ", ".join(left[turn.host]) or "nothing known"
            return pace, Stop(because=f"{turn.host} is not empty after {roll.limits.moves_s:g} s: {names} is left")
    told = "; ".join(f"{len(vms)} VMs to leave {host}" for host, vms in left.items())
    return pace, Wait(sentence=told)


def _is_emptied(host: HostId, seen: Seen) -> bool:
    doc = seen.view.doc_of(host)
    return doc.evacuate or _is_empty(host, seen)


def _is_empty(host: HostId, seen: Seen) -> bool:
    doc = seen.view.doc_of(host)
    return doc.maintenance and state_of(host, seen) is HostState.MAINTENANCE and not vms_on(host, seen.view)


# --- the command, and the host's return --------------------------------------------------------------------------


def _command(roll: Roll, turn: Turn, seen: Seen) -> Act:
    host = turn.host
    if not _is_empty(host, seen):
        return Stop(because=f"{host} is not empty and in maintenance any more: somebody changed that")
    if not _reports(host, seen):
        late = seen.view.now - turn.since > UNREST_S
        return Stop(because=f"{host} does not report") if late else Wait(sentence=f"{host} does not report")
    match turn.command:
        case Commanded.BEGUN:
            return Stop(because=f"nobody knows how the command ended on {host}")
        case Commanded.FAILED:
            return Stop(because=f"the command failed on {host} with exit code {turn.exit_code}")
        case _:
            boot = seen.verdicts[host].incarnation
            return Run(roll=roll.put(replace(turn, command=Commanded.BEGUN, boot=boot)), host=host)


def _reports(host: HostId, seen: Seen) -> bool:
    verdict = seen.verdicts.get(host)
    return verdict is not None and verdict.fresh


def _return(roll: Roll, turns: tuple[Turn, ...], pace: Pace, seen: Seen) -> tuple[Pace, Act]:
    now = seen.view.now
    back, waits = [], []
    for turn in turns:
        why = _not_back(turn, roll, seen)
        beat = heard(seen.view, turn.host)
        known = dict(pace.well_at)
        if why or beat is None:
            known.pop(turn.host, None)
        elif known.get(turn.host, ("", now))[0] != beat.incarnation:
            known[turn.host] = beat.incarnation, now
        pace = replace(pace, well_at=known)
        if not why and beat is not None:
            steady = STEADY_S if beat.incarnation == turn.boot else STEADY_ANEW_S
            if now - known[turn.host][1] >= steady:
                back.append(turn)
                continue
            why = f"{turn.host} reports and is well; it has to stay so for {steady:g} s"
        waits.append(why)
        if now - turn.since > roll.limits.return_s:
            return pace, Stop(because=f"{turn.host} is not cleanly back after {roll.limits.return_s:g} s: {why}")
    if back:
        ahead = [replace(turn, stage=Stage.HOME, since=now, asked=False) for turn in back]
        names = " and ".join(turn.host for turn in back)
        return pace, Keep(roll=roll.put(*ahead), sentence=f"{names} is cleanly back")
    return pace, Wait(sentence="; ".join(waits))


def _not_back(turn: Turn, roll: Roll, seen: Seen) -> str:
    """Return why the host cannot be called cleanly back at this look, or an empty string."""
    host, beat, verdict = turn.host, heard(seen.view, turn.host), seen.verdicts.get(turn.host)
    if verdict is None:
        return seen.unwatched
    if beat is None or not verdict.fresh or beat.received_at < turn.since:
        return f"{host} does not report"
    if roll.reboots and beat.incarnation == turn.boot:
        return f"{host} still reports in the boot that the command met"
    if beat.hypervisor is not HypervisorHealth.OK:
        return f"{host} reports, but its libvirt is {beat.hypervisor}"
    if verdict.finding not in (Finding.ALIVE, Finding.REBOOTED) or not beat.settled:
        return verdict.sentence
    return ""


# --- going home --------------------------------------------------------------------------------------------------


def _fill(roll: Roll, turns: tuple[Turn, ...], pace: Pace, seen: Seen) -> tuple[Pace, Act]:
    now = seen.view.now
    out = [turn for turn in turns if _is_out(turn.host, seen)]
    unasked = tuple(turn.host for turn in out if not turn.asked)
    if unasked:
        return pace, Activate(hosts=unasked)
    if out:
        return pace, Stop(because=f"{out[0].host} was activated, and somebody took it out again")
    full, waits = [], []
    for turn in turns:
        doc = seen.view.doc_of(turn.host)
        away = doc.away if doc.failback else ()
        whys = tuple(why for vm in away if (why := _alarm("failback_waits", vm, seen)))
        pace = _standing(pace, turn.host, len(whys) == len(away) > 0 and not _moving(away, seen), now)
        stands = now - pace.stands_at.get(turn.host, now) > STANDS_S
        if state_of(turn.host, seen) is HostState.ONLINE and (not away or stands):
            full.append(replace(turn, stage=Stage.DONE, since=now, not_home=whys or _elsewhere(turn, seen)))
        elif now - turn.since > roll.limits.moves_s:
            names = ", ".join(away) or "itself"
            return pace, Stop(because=f"after {roll.limits.moves_s:g} s, {turn.host} still waits for {names}")
        else:
            waits.append(f"{len(away)} VMs to come home to {turn.host}")
    if full:
        return pace, Keep(roll=roll.put(*full), sentence="; ".join(map(_ended, full)))
    return pace, Wait(sentence="; ".join(waits))


def _is_out(host: HostId, seen: Seen) -> bool:
    doc = seen.view.doc_of(host)
    return doc.maintenance or doc.evacuate


def _elsewhere(turn: Turn, seen: Seen) -> tuple[str, ...]:
    """Return what became of its VMs that a failback has given up on: stopped, removed, or kept elsewhere."""
    told = []
    for vm in turn.vms:
        doc, record = seen.view.vms.get(vm), seen.view.vm_records.get(vm)
        if doc is not None and doc.to_run and record is not None and record.owner != turn.host:
            told.append(f"{vm} is {record.state} on {record.owner or 'no host'}")
    return tuple(told)


def _ended(turn: Turn) -> str:
    rest = f", but {'; '.join(turn.not_home)}" if turn.not_home else ""
    return f"{turn.host} is done{rest}"


# --- what a controller says --------------------------------------------------------------------------------------


def _alarm(kind: str, subject: str, seen: Seen) -> str:
    return next((alarm.sentence for alarm in seen.alarms if (alarm.kind, alarm.subject) == (kind, subject)), "")


def _moving(vms: tuple[str, ...], seen: Seen) -> bool:
    return any(
        op.kind in (OperationKind.MIGRATE, OperationKind.RELOCATE) and op.subject in vms
        for op in seen.view.operations.values()
    )


def _standing(pace: Pace, host: HostId, stands: bool, now: Instant) -> Pace:
    known = dict(pace.stands_at)
    if stands:
        known.setdefault(host, now)
    else:
        known.pop(host, None)
    return replace(pace, stands_at=known)
