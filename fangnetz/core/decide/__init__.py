"""The one door: `decide(view, watch, policy)` -> everything that should be done now, and why. Pure.

Level, not edge: it asks what should be true now given what is written, so nothing is missed that happened before.
"""

from __future__ import annotations

from collections.abc import Mapping

from fangnetz.core import pause
from fangnetz.core.actions import (
    Action,
    AdoptOperation,
    Alarm,
    Decision,
    Define,
    ForgetVm,
    OpenOperation,
    PutHost,
    PutHostDoc,
    PutVm,
)
from fangnetz.core.decide.definitions import Definitions, differing_files
from fangnetz.core.decide.evacuations import Evacuations
from fangnetz.core.decide.hosts import HostDecisions
from fangnetz.core.decide.mending import how_to_mend
from fangnetz.core.decide.outside import decide_outside
from fangnetz.core.decide.pacing import Pace
from fangnetz.core.decide.rule_moves import RuleMoves, may_call_for_moves
from fangnetz.core.decide.vms import VmDecisions
from fangnetz.core.decide.wishes import decide_wish
from fangnetz.core.detector import Verdict, Watch, judge
from fangnetz.core.leaving import leaving, stays_with
from fangnetz.core.model import ClusterView, HostState, VmDoc, VmRecord, VmState
from fangnetz.core.operations import Operation
from fangnetz.core.policy import Policy
from fangnetz.core.quorum import unheard_in_this_life
from fangnetz.core.units import Epoch, HostId, Instant, VmId

__all__ = ["decide", "judge_all"]

REBOOT_S = 600.0
"""A VM that waits for longer than this for the host with which it was stopped is a matter for a person."""
_ALARMED = frozenset(
    {HostState.SUSPECT, HostState.UNKNOWN, HostState.DEGRADED, HostState.ISOLATED, HostState.LOST,
     HostState.QUARANTINED}
)  # fmt: skip
"""States in which nothing may be under way, and which a person should therefore know of."""
_ALARMED_VMS = (
    (VmState.NEEDS_PERSON, "needs_person", ":"),
    (VmState.FAILED, "vm_failed", ":"),
    (VmState.WAITING, "vm_waiting", " waits:"),
)
_ALARMED_VM_STATES = frozenset(state for state, _, _ in _ALARMED_VMS)


def judge_all(view: ClusterView, watch: Watch, policy: Policy) -> dict[HostId, Verdict]:
    """Return the verdict on every host."""
    return {host: judge(host, view, watch, policy) for host in view.hosts}


def decide(view: ClusterView, watch: Watch, policy: Policy, declared: Mapping[VmId, VmDoc] | None = None) -> Decision:
    """Return what the holder of the control lease should do now. Without the lease: verdicts and alarms only.

    `declared`: the VMs of this controller's cluster file; None leaves all definitions as they are.
    """
    verdicts = judge_all(view, watch, policy)
    unheard = unheard_in_this_life(view, watch, policy)
    actions: list[Action] = []
    alarms: list[Alarm] = []
    if view.lease is not None:
        epoch = view.lease.epoch
        actions.extend(AdoptOperation(id=op.id, epoch=epoch) for op in view.operations.values() if op.epoch != epoch)
        changes = ""
        for wish in view.wishes[:1]:  # one a tick: each sees the world the one before it made
            settled = decide_wish(wish, view, watch, verdicts, policy, epoch)
            actions.extend(settled)
            changes = wish.subject if len(settled) > 1 else ""  # a refused one changes nothing
            view = pause.from_now_on(view, settled)
        actions.extend(pause.over(view))
        # Wishes never keep the other hosts from being watched and recovered.
        host_actions, host_alarms = _hosts(view, watch, verdicts, policy, epoch, but=changes)
        actions.extend(host_actions)
        alarms.extend(host_alarms)
        if not changes:
            opened = [action.operation for action in host_actions if isinstance(action, OpenOperation)]
            more, warnings = _definitions_and_vms(view, watch, verdicts, policy, epoch, opened, declared, unheard)
            actions.extend(more)
            alarms.extend(warnings)
            more, warnings = _moves(view, watch, verdicts, policy, epoch, actions)
            actions.extend(more)
            alarms.extend(warnings)
        if view.paused is not None:
            actions = pause.held_back(actions)
    alarms.extend(pause.alarms(view))
    alarms.extend(_standing(view, unheard))
    return Decision(
        actions=tuple(actions),
        verdicts=tuple(verdicts.values()),
        alarms=tuple(alarms),
        next_due=next_due(view, watch, verdicts, policy),
    )


def _definitions_and_vms(
    view: ClusterView,
    watch: Watch,
    verdicts: dict[HostId, Verdict],
    policy: Policy,
    epoch: Epoch,
    opened: list[Operation],
    declared: Mapping[VmId, VmDoc] | None,
    unheard: tuple[HostId, ...],
) -> tuple[list[Action], list[Alarm]]:
    actions, alarms = decide_outside(view, policy, same_files=not differing_files(view))
    touched: set[VmId] = set()
    if declared is not None:
        more, warnings = Definitions(view, declared, unheard).decide()
        actions.extend(more)
        alarms.extend(warnings)
        touched |= {action.vm for action in more if isinstance(action, ForgetVm)}
        touched |= {doc.spec.id for action in more if isinstance(action, Define) for doc in action.docs}
    vm_actions, vm_alarms = VmDecisions(view, watch, verdicts, policy, epoch, opened, but=touched).decide()
    return [*actions, *vm_actions], [*alarms, *vm_alarms]


def _moves(
    view: ClusterView, watch: Watch, verdicts: dict[HostId, Verdict], policy: Policy, epoch: Epoch, done: list[Action]
) -> tuple[list[Action], list[Alarm]]:
    """`done`: what this tick does already; none of it is done over."""
    opened = [action.operation for action in done if isinstance(action, OpenOperation)]
    emptied = any(doc.evacuate or doc.failback for doc in view.host_docs.values())
    emptied = emptied or any(leaving(view, host) is not None for host in view.hosts)
    by_rules = not opened and may_call_for_moves(view)  # whatever else there is to do comes first
    if not emptied and not by_rules:
        return [], []
    changed = [action.record.id for action in done if isinstance(action, PutHost | PutVm)]
    docs = [action.doc.id for action in done if isinstance(action, PutHostDoc)]
    pace = Pace(view, policy, epoch, opened=opened, but=frozenset(changed))
    actions: list[Action] = []
    alarms: list[Alarm] = []
    if emptied:
        more, alarms = Evacuations(view, watch, verdicts, policy, pace=pace, documented=docs).decide()
        actions.extend(more)
    if by_rules and not pace.begun:
        more, warnings = RuleMoves(view, watch, verdicts, policy, pace=pace).decide()
        actions.extend(more)
        alarms.extend(warnings)
    return actions, alarms


def _hosts(
    view: ClusterView, watch: Watch, verdicts: dict[HostId, Verdict], policy: Policy, epoch: Epoch, *, but: str
) -> tuple[list[Action], list[Alarm]]:
    actions: list[Action] = []
    alarms: list[Alarm] = []
    for spec in view.hosts.values():
        if spec.id == but:
            continue
        more, warnings = HostDecisions(spec, view, watch, verdicts, policy, epoch).decide()
        actions.extend(more)
        alarms.extend(warnings)
    return actions, alarms


def _soon_back(view: ClusterView, vm: VmRecord) -> bool:
    """Whether a VM waits, as planned, for the host with which it was stopped."""
    return vm.state is VmState.WAITING and view.now - vm.since < REBOOT_S and stays_with(view, vm) is not None


def _standing(view: ClusterView, unheard: tuple[HostId, ...]) -> list[Alarm]:
    """Return the alarms that follow from records alone."""
    told_of = [vm for vm in view.vm_records.values() if vm.state in _ALARMED_VM_STATES]
    alarms = [
        Alarm(kind=kind, subject=vm.id, sentence=f"{vm.id}{says} {vm.reason}")
        for state, kind, says in _ALARMED_VMS
        for vm in told_of
        if vm.state is state and not _soon_back(view, vm)
    ]
    alarms.extend(
        Alarm(kind="needs_person", subject=host.id, sentence=f"{host.id}: {host.reason}")
        for host in view.host_records.values()
        if host.state.value == "needs_person"
    )
    alarms.extend(
        Alarm(kind=f"host_{host.state}", subject=host.id, sentence=f"{host.id}: {host.reason}")
        for host in view.host_records.values()
        if host.state in _ALARMED
    )
    alarms.extend(
        Alarm(
            kind="contested",
            subject=host,
            sentence=f"two machines report as {host}: one of them carries another's FANGNETZ_HOST; "
            "no VM is moved on the word of either",
            highest=True,
        )
        for host, beat in view.heartbeats.items()
        if beat.contested
    )
    alarms.extend(
        Alarm(
            kind="hold",
            subject=host,
            sentence=f"no VM is started before {host} is heard or proven off: nobody knows what runs there since the "
            f"store's life began. Switch it on, or make sure by hand that it is off, then "
            f"`fangnetz host confirm-off {host}`",
        )
        for host in unheard
    )
    alarms.extend(
        Alarm(kind="unreadable", subject=sentence.partition(": ")[0], sentence=sentence) for sentence in view.unreadable
    )
    alarms.extend(Alarm(kind="vm_unreadable", subject=vm, sentence=what) for vm, what in how_to_mend(view).items())
    return alarms


def next_due(view: ClusterView, watch: Watch, verdicts: dict[HostId, Verdict], policy: Policy) -> Instant | None:
    """Return the next instant at which silence alone crosses a threshold of some host."""
    due: list[float] = []
    for host, seen in watch.hosts.items():
        verdict = verdicts[host]
        if not verdict.incarnation:
            continue
        for threshold in (policy.overdue_s, policy.window_s):
            if seen.silent_for < threshold:
                due.append(view.now + threshold - seen.silent_for + 0.01)
                break
    return Instant(min(due)) if due else None
