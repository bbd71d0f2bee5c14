"""The cluster inside a lab, seen through its own store as the command line sees it. Only reads.

Polling runs in this process: starting a command for every look would load the machine that is being measured.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from fangnetz import wiring
from fangnetz.core.decide import judge_all
from fangnetz.core.detector import heard, known_incarnation, look
from fangnetz.core.errors import StoreUnreachable
from fangnetz.core.fencing import protection
from fangnetz.core.incidents import Incident, incident_of
from fangnetz.core.model import ClusterView, HostState, VmState
from fangnetz.core.operations import Operation, OperationKind
from fangnetz.core.policy import Policy
from fangnetz.core.quorum import brakes
from fangnetz.core.units import Seconds
from fangnetz.lab.errors import LabError
from fangnetz.lab.lab import Lab
from fangnetz.ports import LoggedEvent
from fangnetz.settings import load_settings

LOOK_EVERY_S = 0.25
LATEST_MAX = 50
"""So many operations are looked through for the one that is meant."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failover:
    """One failover as the journal holds it, and the incident that is read from it."""

    operation: Operation
    incident: Incident


class Onlooker:
    """Reads one lab's cluster. Raises StoreUnreachable where the store is away and the caller must know."""

    def __init__(self, lab: Lab) -> None:
        settings = load_settings(lab.config_path, "host")
        self._store = wiring.open_store(settings, name="onlooker")
        self._hosts = {host: one.spec for host, one in settings.hosts.items()}
        self._vms = lab.plan.vms
        self.policy: Policy = settings.policy

    def view(self) -> ClusterView:
        """Return all that stands in the store now, as a controller would read it."""
        return self._store.view(self._hosts, None)

    def operations(self, limit: int = LATEST_MAX) -> tuple[Operation, ...]:
        """Return so many of the latest operations, open and closed."""
        return self._store.operations(limit)

    def heard_at(self) -> dict[str, float]:
        """Return when each host was last heard, seconds since the epoch; a host never heard is left out."""
        return {host: float(beat.received_at) for host, beat in self.view().heartbeats.items()}

    def in_charge(self) -> str:
        """Return the controller that may decide now; empty if the control lease ran out or nobody has it."""
        lease = self._store.control_lease()
        return lease.holder if lease is not None and lease.until > self._store.now() else ""

    def failover(self, host: str, since: float) -> Failover | None:
        """Return the latest failover of a host that was opened after `since`, None if there is none."""
        operations = self._store.operations(LATEST_MAX)
        for operation in operations:
            ours = operation.kind is OperationKind.FAILOVER and operation.subject == host
            if ours and operation.opened_at >= since:
                return Failover(operation=operation, incident=incident_of(operation, operations))
        return None

    def latest_event(self) -> str:
        """Return the id of the latest event, fit for `events_after`."""
        found = self.latest_events(1)
        return found[-1].id if found else "0-0"

    def latest_events(self, limit: int) -> tuple[LoggedEvent, ...]:
        """Return so many of the latest events, the latest last."""
        return self._store.events("", limit, Seconds(0.0))

    def events_after(self, after: str, *, wait_s: float = 0.0, limit: int = 500) -> tuple[LoggedEvent, ...]:
        """Return what happened after an event, waiting up to `wait_s` seconds for the first."""
        return self._store.events(after, limit, Seconds(wait_s))

    def unrest(self) -> str:
        """Return why the cluster is not in its best state, or an empty string."""
        try:
            lease, watch, view = self._store.control_lease(), self._store.holder_watch(), self.view()
        except StoreUnreachable as error:
            return str(error)
        if lease is None or lease.until <= view.now or watch is None:
            return "no controller is in charge"
        if view.now - watch.looked_at > self.policy.gap_s:
            return "the controller in charge has not looked for a while"
        watch = look(watch, view, self.policy)
        verdicts = judge_all(view, watch, self.policy)
        for host, spec in self._hosts.items():
            record, beat = view.host_records.get(host), heard(view, host)
            if record is None or record.state is not HostState.ONLINE or not verdicts[host].fresh:
                return f"{host} is {record.state if record else 'not known yet'}"
            safe = protection(view, spec, beat.incarnation if beat else known_incarnation(view, host))
            if not safe.protected:
                return f"{host} could not be fenced: {'; '.join(safe.sentences)}"
            held = brakes(host, view, watch, verdicts, self.policy)
            if held:
                return held[0].sentence
        if view.operations:
            return f"{len(view.operations)} operations are open"
        records = {str(vm): record for vm, record in view.vm_records.items()}
        for vm in self._vms:
            if vm not in records or records[vm].state is not VmState.RUNNING:
                return f"{vm} is {records[vm].state if vm in records else 'not known yet'}"
        return ""

    def wait_until_calm(self, within_s: float = 120.0) -> None:
        """Wait until the cluster was in its best state for one window and a second: by then nobody is only just back.

        Raises LabError saying what lacks.
        """
        until = time.monotonic() + within_s
        calm_since: float | None = None
        while True:
            unrest = self.unrest()
            now = time.monotonic()
            calm_since = None if unrest else (calm_since if calm_since is not None else now)
            if calm_since is not None and now - calm_since > self.policy.window_s + 1:
                return
            if now > until:
                raise LabError(f"after {within_s:g} s the cluster is still not at rest: {unrest or 'it only just is'}")
            time.sleep(LOOK_EVERY_S)

    def alive_hosts(self) -> set[str]:
        """Return the hosts whose state is online."""
        records = self.view().host_records
        return {str(host) for host, record in records.items() if record.state is HostState.ONLINE}
