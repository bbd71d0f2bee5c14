"""What domains have consumed, as libvirt says it.

Never waits for a domain that is busy with a job, a migration for one: its memory is not told then.
"""

from __future__ import annotations

import libvirt

from fangnetz.adapters.libvirt.refusals import NOT_THERE
from fangnetz.core.units import Seconds, VmId
from fangnetz.ports import Consumed

STATS = libvirt.VIR_DOMAIN_STATS_STATE | libvirt.VIR_DOMAIN_STATS_CPU_TOTAL | libvirt.VIR_DOMAIN_STATS_BALLOON
FLAGS = libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_ACTIVE | libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT
RUNS = frozenset({libvirt.VIR_DOMAIN_NOSTATE, libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_BLOCKED})


def consumption(connection: libvirt.virConnect) -> tuple[Consumed, ...]:
    """Return CPU time and memory per domain that runs. Memory is what its QEMU has resident, huge pages not included.

    Drivers without such statistics, and hosts where libvirt counts without control groups, are asked per domain: then
    memory is what the guest is given at the moment.
    """
    found = []
    for domain, stats in connection.getAllDomainStats(STATS, FLAGS):
        if stats.get("state.state", libvirt.VIR_DOMAIN_NOSTATE) not in RUNS:
            continue
        cpu_ns, memory_kib = stats.get("cpu.time"), stats.get("balloon.rss")
        tells_memory = any(key.startswith("balloon.") for key in stats)  # if not always all of it
        try:
            if cpu_ns is None or not tells_memory:
                _state, _most, given_kib, _cpus, used_ns = domain.info()
                cpu_ns = used_ns if cpu_ns is None else cpu_ns
                memory_kib = memory_kib if tells_memory else given_kib
            vm = VmId(domain.name())
        except libvirt.libvirtError as error:
            if error.get_error_code() in NOT_THERE:
                continue  # it ended since the listing
            raise
        memory = None if memory_kib is None else memory_kib / 1024
        found.append(Consumed(vm=vm, cpu_s=Seconds(cpu_ns / 1e9), memory_mib=memory))
    return tuple(found)
