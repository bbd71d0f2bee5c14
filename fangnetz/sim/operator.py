"""The person at the command line: writes wishes into the store, as the CLI does. Its machine is never cut."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fangnetz.core.errors import StoreUnreachable
from fangnetz.core.model import Wish, WishKind
from fangnetz.core.units import Instant
from fangnetz.sim.machine import Machine
from fangnetz.sim.store.line import ServerLine
from fangnetz.sim.store.twin import StoreTwin

if TYPE_CHECKING:
    from fangnetz.sim.world import World

KINDS = {
    "activate": WishKind.HOST_ACTIVATE,
    "evacuate": WishKind.HOST_EVACUATE,
    "fence": WishKind.HOST_FENCE,
    "confirm_off": WishKind.HOST_CONFIRM_OFF,
    "start": WishKind.VM_START,
    "stop": WishKind.VM_STOP,
    "ignore": WishKind.VM_IGNORE,
    "migrate": WishKind.VM_MIGRATE,
    "relocate": WishKind.VM_RELOCATE,
    "remove": WishKind.VM_REMOVE,
    "add": WishKind.VM_ADD,
    "pause": WishKind.CLUSTER_PAUSE,
    "resume": WishKind.CLUSTER_RESUME,
}


class Operator:
    def __init__(self, world: World, machine: Machine) -> None:
        self._world = world
        self._process = machine.run("operator", world.failed)
        self._line = ServerLine(self._process, machine, world.server, world.network)

    def wish(self, verb: str, subject: str, **more: Any) -> None:
        """`more`: what the wish says beside its kind and subject, as in `Wish`; `for_s`: for so long from then on."""
        self._process.spawn(f"{verb} {subject}", lambda: self._write(verb, subject, more))

    def _write(self, verb: str, subject: str, more: Mapping[str, Any]) -> None:
        store = StoreTwin(self._line)
        name = self._world.kernel.name("w")
        try:
            at = store.now()
            said = {key: value for key, value in more.items() if key != "for_s"}
            if "for_s" in more:
                said["until"] = Instant(at + more["for_s"])
            store.add_wish(Wish(id=name, kind=KINDS[verb], subject=subject, by="operator", at=at, **said))
        except StoreUnreachable as away:
            self._world.chronicle.tell("wish_not_written", f"{verb} {subject}: {away}", wish=verb)
