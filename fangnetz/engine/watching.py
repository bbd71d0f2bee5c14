"""Questions that change nothing: a probe round over all hosts, and the power status of one host's fence devices."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from fangnetz.core.detector import heard
from fangnetz.core.model import HostSpec, Power, ProbeAnswer, ProbeRound
from fangnetz.core.policy import Policy
from fangnetz.core.units import ControllerId, DeviceName, HostId, Incarnation, Seconds
from fangnetz.engine.steps.fence import ask_device
from fangnetz.ports import Dispatcher, FenceDevice, Prober, ProbeTarget, Process, Store


def probe_hosts(
    store: Store,
    prober: Prober,
    me: ControllerId,
    targets: Sequence[ProbeTarget],
    references: Sequence[str],
    policy: Policy,
    timeout: Seconds | None = None,
) -> ProbeRound:
    """Probe the hosts once and write the round down. `timeout`: another one than the policy's."""
    started = store.now()
    replies = prober.probe(targets, timeout or policy.probe_timeout_s)
    reached = prober.reach(references, policy.probe_timeout_s) if references else ()
    probe = ProbeRound(
        prober=me,
        started_at=started,
        ended_at=store.now(),
        answers=tuple(
            ProbeAnswer(host=reply.host, ping=reply.ping, kernel=reply.kernel, libvirt=reply.libvirt)
            for reply in replies
        ),
        references=tuple(reached),
    )
    store.put_probe_round(probe)
    return probe


class PowerAsker:
    """Asks a host's fence devices, all at once, at most one question a device at a time."""

    def __init__(
        self,
        store: Store,
        hosts: Mapping[HostId, HostSpec],
        policy: Policy,
        devices: Callable[[HostId], Mapping[DeviceName, FenceDevice]],
        dispatcher: Dispatcher,
        process: Process,
        contradict: Callable[[HostId], None] = lambda _host: None,
    ) -> None:
        self._store, self._hosts, self._policy = store, hosts, policy
        self._devices, self._dispatcher, self._process, self._contradict = devices, dispatcher, process, contradict
        self._asking: set[tuple[HostId, DeviceName]] = set()
        self._lock = process.lock()

    def ask(self, host: HostId, names: Sequence[DeviceName]) -> None:
        """Read the named devices' status, write the answers down and nudge the tick."""
        devices = self._devices(host)
        with self._lock:
            free = [name for name in names if name in devices and (host, name) not in self._asking]
            self._asking.update((host, name) for name in free)
        if not free:
            return
        try:
            incarnation = self._fresh_incarnation(host)
            bound = self._policy.power_ask_s
            readings = self._process.together(
                [partial(ask_device, self._store, host, devices[name], bound, incarnation) for name in free]
            )
            if any(reading.power is Power.OFF for reading in readings):
                # A host that answers after its plug read OFF contradicts it: asked, and written down, before the
                # reading can be used by anybody.
                self._contradict(host)
            for reading in readings:
                self._store.put_reading(reading)
        finally:
            with self._lock:
                self._asking.difference_update((host, name) for name in free)
        self._dispatcher.nudge()

    def _fresh_incarnation(self, host: HostId) -> Incarnation:
        """Return the boot whose report is fresh right now; empty if none is, so that the reading binds nothing."""
        view = self._store.view({host: self._hosts[host]}, None)
        beat = heard(view, host)
        fresh = beat is not None and view.now - beat.received_at < self._policy.overdue_s
        return beat.incarnation if beat is not None and fresh else Incarnation("")
