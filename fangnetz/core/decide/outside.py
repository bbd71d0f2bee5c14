"""Hosts that were members and are not in the cluster file any more: named until they are known to own nothing.

They get no VMs and are not fenced: nobody knows their devices any more. A person puts them back, or confirms them off.
"""

from __future__ import annotations

from dataclasses import replace

from fangnetz.core.actions import Action, Alarm, Happened, PutHost, PutHostDoc
from fangnetz.core.decide.withdrawals import endings, withdrawal, without_proof
from fangnetz.core.detector import heard, known_incarnation
from fangnetz.core.fencing import remembered_voided, spoke, waits_for_files, withdrawn
from fangnetz.core.model import ClusterView, HypervisorHealth
from fangnetz.core.ownership import proof_of
from fangnetz.core.policy import Policy
from fangnetz.core.units import HostId, Incarnation, VmId


def last_boot(view: ClusterView, host: HostId) -> Incarnation:
    """Return the boot of a host outside that was heard or remembered last."""
    beat = heard(view, host)
    owned = [record.owner_incarnation for record in view.vm_records.values() if record.owner == host]
    return beat.incarnation if beat is not None else known_incarnation(view, host) or Incarnation("".join(owned[:1]))


def decide_outside(view: ClusterView, policy: Policy, *, same_files: bool) -> tuple[list[Action], list[Alarm]]:
    """Forget the hosts outside that own nothing, and name the others with what to do.

    `same_files`: whether the controllers agree on the cluster file; where they do not, nobody is forgotten.
    """
    actions: list[Action] = []
    alarms: list[Alarm] = []
    for host in view.outside:
        owned = tuple(sorted(record.id for record in view.vm_records.values() if record.owner == host))
        proof = proof_of(view, host, last_boot(view, host))
        proven = proof is not None
        lasting = proof is not None and not waits_for_files(view, proof, policy.startup_grace_s)
        more, warnings = _spoke_after_its_proof(view, host)
        actions += more
        alarms += warnings
        if not owned and same_files and (lasting or _empty(view, host)):
            doc = replace(view.host_docs[host], incarnation=Incarnation(""))
            sentence = f"{host} is not in the cluster file and owns no VM: it is forgotten"
            actions += [
                PutHostDoc(doc=doc),
                Happened(kind="host_forgotten", subject=host, sentence=sentence, facts={"host": host}),
            ]
        elif not proven:
            alarms.append(Alarm(kind="host_outside", subject=host, sentence=_sentence(view, host, owned, policy)))
    return actions, alarms


def _spoke_after_its_proof(view: ClusterView, host: HostId) -> tuple[list[Action], list[Alarm]]:
    """Withdraw for good the proof of a boot that was heard after it, though nobody watches this host any more."""
    boot, kept = last_boot(view, host), view.proofs.get(host)
    record = view.record_of(host)
    told = record.proof if record.proof is not None and record.proof.incarnation == boot else None
    remembered = kept if kept is not None and kept.incarnation == boot else None
    proof = told or remembered
    if proof is None:
        return [], []
    void = (
        proof.void
        or withdrawn(view, host, boot)
        or spoke(proof, view)
        or (remembered is not None and remembered_voided(remembered, view))
    )
    if not void:
        return [], []
    sentence = (
        f"{host}, which is not in the cluster file any more, spoke as the very boot that was proven off "
        f"({proof.sentence}): the proof is void. Put it back, or once it is silent make sure by hand that it is off, "
        f"then `fangnetz host confirm-off {host}`"
    )
    actions: list[Action] = []
    if told is None or not told.void:
        put = PutHost(record=without_proof(record, proof, view, sentence))
        actions = [*withdrawal(view, proof), put, *endings(view, host, sentence)]
    return actions, [Alarm(kind="proof_void", subject=host, sentence=sentence, highest=True)]


def _empty(view: ClusterView, host: HostId) -> bool:
    """Whether its last report of this life shows that nothing runs there and nothing is being started."""
    beat = heard(view, host)
    if beat is None or beat.hypervisor is not HypervisorHealth.OK or beat.contested:
        return False
    ordered = any(
        step.order is not None and step.order.host == host for op in view.operations.values() for step in op.steps
    )
    return not beat.inventory and not beat.orders and not ordered


def _sentence(view: ClusterView, host: HostId, owned: tuple[VmId, ...], policy: Policy) -> str:
    beat = heard(view, host)
    what = f"{host} is not in the cluster file any more, but was a member"
    what += f" and owns {', '.join(owned)}" if owned else ""
    if beat is not None and view.now - beat.received_at < policy.window_s:
        runs = ", ".join(sorted(seen.vm for seen in beat.inventory)) or "nothing"
        return f"{what}; it reports and runs {runs}. Put it back into the file, or stop its VMs"
    return (
        f"{what}; it is silent, and its VMs may run there. Put it back into the file, or make sure by hand that it is "
        f"off and `fangnetz host confirm-off {host}`"
    )
