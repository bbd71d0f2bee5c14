"""May we act at all? The brakes before a cut: each holds back cuts, never read-only proof, and says why.

A braked situation is a named state with an alarm; nothing here is silent.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from fangnetz.core.detector import Finding, Verdict, Watch, heard, known_incarnation
from fangnetz.core.fencing import holds, remembered_proof, waits_for_files
from fangnetz.core.model import ClusterView, HostState, HypervisorHealth, OffProof
from fangnetz.core.pause import told
from fangnetz.core.policy import Policy
from fangnetz.core.units import ControllerId, HostId


class BrakeKind(StrEnum):
    PAUSED = "paused"
    STARTUP_GRACE = "startup_grace"
    MASS_FAILURE = "mass_failure"
    NO_QUORUM = "no_quorum"
    MAINTENANCE = "maintenance"
    OWN_HOST = "own_host"


@dataclass(frozen=True, slots=True, kw_only=True)
class Brake:
    kind: BrakeKind
    sentence: str


def away(view: ClusterView, host: HostId) -> bool:
    """Whether a host is out of the count: in maintenance, left, or proven off and not heard as a new boot."""
    record = view.host_records.get(host)
    doc = view.host_docs.get(host)
    if doc is not None and doc.maintenance:
        return True
    if record is not None and record.state in (HostState.MAINTENANCE, HostState.LEFT):
        return True
    return proven_off(view, host)


def proven_off(view: ClusterView, host: HostId) -> bool:
    """Whether the latest boot known of a host is proven off. Maintenance and a goodbye are no such proof."""
    return bool(_proofs(view, host))


def _proofs(view: ClusterView, host: HostId) -> list[OffProof]:
    """Return what proves the latest boot known of a host off: its record, and what files remember."""
    record, beat = view.host_records.get(host), heard(view, host)
    latest = beat.incarnation if beat else known_incarnation(view, host)
    found = [] if record is None or record.proof is None or not holds(view, record.proof, latest) else [record.proof]
    remembered = remembered_proof(view, host)
    return [*found, remembered] if remembered is not None and remembered.incarnation == latest else found


def in_grace(view: ClusterView, watch: Watch, policy: Policy) -> bool:
    """Whether this controller's watch or this life of the store is younger than the startup grace."""
    return watch.looked_at - max(watch.started_at, view.life.since) < policy.startup_grace_s


def lost_allowed(voters: int, share: float) -> int:
    """Return how many of `voters` hosts may be lost at once: a share rounded down, but one always may."""
    return max(1, math.floor(voters * share))


def brakes(
    host: HostId, view: ClusterView, watch: Watch, verdicts: Mapping[HostId, Verdict], policy: Policy
) -> tuple[Brake, ...]:
    """Return every brake that forbids cutting `host` now; empty means a cut may be ordered."""
    found: list[Brake] = []
    if view.paused is not None:
        found.append(Brake(kind=BrakeKind.PAUSED, sentence=told(view.paused)))
    doc = view.host_docs.get(host)
    if doc is not None and doc.maintenance:
        found.append(Brake(kind=BrakeKind.MAINTENANCE, sentence=f"{host} is in maintenance"))
    if view.holder is not None and view.holder in view.hosts[host].controllers:
        found.append(Brake(kind=BrakeKind.OWN_HOST, sentence=_own_host(host, view.holder, view, policy)))
    members = [h for h in view.hosts if not away(view, h)]
    unreported = [h for h in members if heard(view, h) is None]
    if in_grace(view, watch, policy) and unreported:
        began = watch.looked_at - max(watch.started_at, view.life.since)
        found.append(
            Brake(
                kind=BrakeKind.STARTUP_GRACE,
                sentence=f"this controller or the store's life began {began:.0f} s ago and "
                f"{', '.join(unreported)} has not reported yet; nobody is fenced for that "
                f"before {policy.startup_grace_s:g} s",
            )
        )
    voters = [h for h in members if verdicts[h].finding is not Finding.UNHEARD]
    # Who is only just back was lost when this window began: the first host heard again must not doom the others.
    standing = [h for h in voters if not _long_missed(view, h, policy)]
    lost = [h for h in standing if verdicts[h].silent or _only_just_back(watch, h, policy)]
    allowed = lost_allowed(len(standing), policy.max_lost_share)
    if len(lost) > allowed:
        found.append(
            Brake(
                kind=BrakeKind.MASS_FAILURE,
                sentence=f"{len(lost)} of {len(standing)} hosts are silent or just back ({', '.join(sorted(lost))}); "
                f"more than {allowed} looks like a fault of ours, so nobody is cut",
            )
        )
    fresh = sum(1 for h in voters if verdicts[h].fresh)
    if 2 * (fresh + 1) <= len(voters) + 1:
        found.append(
            Brake(
                kind=BrakeKind.NO_QUORUM,
                sentence=f"only {fresh} of {len(voters)} hosts and the store are heard: no majority to act for",
            )
        )
    return tuple(found)


def _own_host(host: HostId, holder: ControllerId, view: ClusterView, policy: Policy) -> str:
    """Return why the holder of the lease does not cut its own host, and who can: only a controller that still looks."""
    looking = {
        name
        for name, at in view.controllers.items()
        if view.now - at <= policy.resume_s and view.files.get(name) != ""  # the empty digest: it has left
    }
    here = {holder, *(looking & set(view.hosts[host].controllers))}
    elsewhere = sorted(looking - here)
    said = f"{holder}, which decides now, runs on {host} itself: it lives, and does not cut itself off. "
    if elsewhere:
        able, stop = " or ".join(elsewhere), " and ".join(sorted(here))
        return said + f"{able} elsewhere may: stop {stop} to hand the control lease over"
    return said + (
        f"No controller elsewhere has looked within {policy.resume_s:g} s, so nobody else decides: start one there, "
        f"and it may. A person still can: `fangnetz host fence {host}`, or switch it off by hand, then `fangnetz host "
        f"confirm-off {host}`; {holder} goes off with it, and its VMs start elsewhere only once another controller runs"
    )


def _long_missed(view: ClusterView, host: HostId, policy: Policy) -> bool:
    """Whether a host was lost well before this window and waits for a person: no news, so it brakes no other cut.

    It still counts against a majority.
    """
    record = view.host_records.get(host)
    if record is None or record.state is not HostState.NEEDS_PERSON:
        return False
    return view.now - record.since > policy.startup_grace_s


def _only_just_back(watch: Watch, host: HostId, policy: Policy) -> bool:
    seen = watch.hosts.get(host)
    return seen is not None and watch.looked_at - seen.back_at < policy.window_s


def unheard_in_this_life(view: ClusterView, watch: Watch, policy: Policy) -> tuple[HostId, ...]:
    """Return hosts that may run something nobody knows of: no inventory since the store's life began, not proven off.

    A host no memory knows of holds others back only during the startup grace. Maintenance lifts no hold: VMs run there.
    Neither does taking a host out of the cluster file: it is remembered until it is heard empty or proven off.
    A proof of an earlier life lifts it once the grace is over, or a device reads OFF (`waits_for_files`).
    """
    grace = in_grace(view, watch, policy)
    return tuple(
        host
        for host in (*view.hosts, *view.outside)
        if not _inventory_known(view, host)
        and all(waits_for_files(view, proof, policy.startup_grace_s) for proof in _proofs(view, host))
        and (grace or heard(view, host) is not None or known_incarnation(view, host))
    )


def _inventory_known(view: ClusterView, host: HostId) -> bool:
    """Whether this life of the store heard what runs there. libvirt hung since before it is no answer."""
    beat = heard(view, host)
    if beat is None:
        return False
    return beat.hypervisor is HypervisorHealth.OK or beat.received_at - beat.inventory_age_s >= view.life.since
