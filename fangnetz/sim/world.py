"""One simulated cluster, put together from a story: machines, network, store, devices, hypervisors, our processes."""

from __future__ import annotations

from collections.abc import Mapping

from fangnetz.core.model import HostSpec, HostState
from fangnetz.core.units import ControllerId, DeviceName, HostId, MiB, VmId
from fangnetz.ports import SlotMark
from fangnetz.sim.beginning import begin
from fangnetz.sim.bmc import Bmc
from fangnetz.sim.bus import OWN, PROBES, QUEUE_PROBE, SHARED, TICKS, control_queue, probe_queue
from fangnetz.sim.chronicle import Chronicle
from fangnetz.sim.controller import ControllerProcesses
from fangnetz.sim.host_worker import HostWorker
from fangnetz.sim.kernel import Kernel
from fangnetz.sim.laws import Laws
from fangnetz.sim.leaving import Shutdown
from fangnetz.sim.libvirtd import Libvirtd, Times
from fangnetz.sim.loads import Loads
from fangnetz.sim.machine import Machine
from fangnetz.sim.network import Network
from fangnetz.sim.operator import Operator
from fangnetz.sim.rolling import Rolls
from fangnetz.sim.store.queues import Bound
from fangnetz.sim.store.server import Server
from fangnetz.sim.stories.story import VM_TIMES, HostOfStory, Story, VmOfStory
from fangnetz.sim.strikes import Strikes

_PASSING_HOST = frozenset({HostState.SUSPECT, HostState.FENCING, HostState.RETURNING, HostState.UNKNOWN})


class World:
    """Everything there is. Parts find each other here and nowhere else."""

    def __init__(self, story: Story, seed: int) -> None:
        self.story, self.policy = story, story.policy
        self.kernel = Kernel(seed)
        self.network = Network()
        self.chronicle = Chronicle(self.kernel)
        self.controller_steps = 0
        self.hosts = {HostId(h.name): _spec(h, story.controllers) for h in story.hosts}
        self.machines: dict[str, Machine] = {}
        self.machines_of_hosts: dict[HostId, Machine] = {}
        self.daemons: dict[HostId, Libvirtd] = {}
        self.bmcs: dict[HostId, dict[DeviceName, Bmc]] = {}
        self.workers: dict[HostId, HostWorker] = {}
        self.shutdowns: dict[HostId, Shutdown] = {}
        self.controllers: dict[ControllerId, ControllerProcesses] = {}
        self.loads = Loads(self.kernel)
        for vm in story.vms:
            self.loads.add(vm)
        self.vm_times = {VmId(vm.name): self._times(vm) for vm in story.vms}
        self.to_start_again: set[VmId] = set()
        """VMs that a person has stopped only to start them anew."""
        self.strikes = Strikes(self)
        self.laws = Laws(self.kernel, self.chronicle, self.machines_of_hosts, self.policy.gap_s)
        for host in story.hosts:
            self._make_host(host)
        self.slots: dict[HostId, SlotMark] | None = {} if story.slots else None
        """What lies in the slots on the shared disk; None where slots are not used."""
        self.server = Server(self.kernel, self._machine(story.store_host, "redis"), story.replicas)
        self.server.done = self.laws.look
        self.laws.memory = lambda: self.server.memory
        self.laws.confirmed = lambda: self.server.confirmed
        self.laws.starts_sent = lambda host, vm: vm in self.daemons[host].starts_sent
        self.server.machine.services.insert(0, self.server)
        for name, shared in story.controllers.items():
            machine = self._machine(shared, name)
            self.controllers[ControllerId(name)] = made = ControllerProcesses(self, machine, ControllerId(name))
            machine.services.append(made)
        desk = self._machine("", "operator")
        self.operator, self.rolls = Operator(self, desk), Rolls(self, desk)
        self._bound_queues()
        for host in story.hosts:
            if host.powered:
                self.machines[host.name].stand_ready()
                self.chronicle.powered(HostId(host.name), on=True, by="timeline")
        for name, machine in self.machines.items():
            if name not in self.machines_of_hosts:
                machine.stand_ready()
        begin(self)

    def failed(self, where: str, error: Exception) -> None:
        """A thread of ours ended with an error nobody caught: that is a fault of ours."""
        self.chronicle.broke("uncaught", f"{where}: {type(error).__name__}: {error}")

    def under_way(self) -> bool:
        """Whether something is going on that will end by itself: a boot, an operation, a host or VM on its way."""
        memory = self.server.memory
        leaving = any(shutdown.pending for shutdown in self.shutdowns.values())
        booting = any(machine.powered and not machine.up for machine in self.machines.values())
        away = not self.server.listening or self.server.stopped or memory.life is None or memory.holder is None
        hosts = any(record.state in _PASSING_HOST for record in memory.hosts.values())
        return booting or leaving or away or hosts or bool(memory.open) or bool(memory.wishes)

    def added(self, vm: VmOfStory) -> None:
        """An operator brings a VM in."""
        self.vm_times[VmId(vm.name)] = self._times(vm)
        self.loads.add(vm)

    def machine_of(self, name: str) -> Machine:
        """Return the machine of a host, a controller or the store."""
        if name == "redis":
            return self.server.machine
        if name in self.controllers:
            return self.controllers[ControllerId(name)].machine
        return self.machines[name]

    # -- parts --

    def _machine(self, host: str, name: str) -> Machine:
        if host:
            return self.machines[host]
        made = Machine(self.kernel, name, self.story.times["boot_s"], lambda _machine, _by: None)
        self.machines[name] = made
        return made

    def _make_host(self, host: HostOfStory) -> None:
        times, name = {**self.story.times, **host.times}, HostId(host.name)

        def on_power(machine: Machine, by: str) -> None:
            self.chronicle.powered(name, on=machine.powered, by=by)

        machine = Machine(self.kernel, name, times["boot_s"], on_power)
        daemon = Libvirtd(
            self.kernel,
            machine,
            self.network,
            lambda vm: self.vm_times[vm],
            self.laws.copy_began,
            self.laws.copy_ended,
            lambda other: self.daemons[other],
            self.loads.of,
        )
        devices: dict[DeviceName, Bmc] = {}
        for level in host.fencing:
            made = [Bmc(self.kernel, machine, DeviceName(device), times["fence_s"]) for device in level]
            for bmc in made:
                bmc.level = made
                devices[bmc.name] = bmc
        daemon.held = self.laws.copy_held
        self.machines[name] = self.machines_of_hosts[name] = machine
        self.daemons[name], self.bmcs[name] = daemon, devices
        self.workers[name] = worker = HostWorker(self, machine, daemon)
        self.shutdowns[name] = shutdown = Shutdown(self, machine, times["shutdown_s"])
        machine.services += [daemon, worker, shutdown]

    def _times(self, vm: VmOfStory) -> Times:
        times = {**self.story.times, **vm.times}
        return Times(**{name: times[name] for name in VM_TIMES})

    def _bound_queues(self) -> None:
        queues = self.server.queues
        devices = sum(len(bmcs) for bmcs in self.bmcs.values())
        for name in ("work", "fence"):
            queues.bound(name, SHARED)
        queues.bound(QUEUE_PROBE, Bound(length_max=2 * devices + TICKS.length_max, idle_s=OWN.idle_s))
        for controller in self.controllers:
            queues.bound(control_queue(controller), TICKS)
            queues.bound(probe_queue(controller), PROBES)
        for host in self.hosts:
            queues.bound(f"host.{host}", OWN)


def _spec(host: HostOfStory, controllers: Mapping[str, str]) -> HostSpec:
    here = tuple(ControllerId(name) for name in sorted(controllers) if controllers[name] == host.name)
    fencing = tuple(tuple(DeviceName(device) for device in level) for level in host.fencing)
    return HostSpec(
        id=HostId(host.name),
        cpus=host.cpus,
        memory_mib=MiB(host.memory_mib),
        fencing=fencing,
        controllers=here,
        zone=host.zone,
    )
