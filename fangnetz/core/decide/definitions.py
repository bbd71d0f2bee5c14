"""Which definitions are known: taken from the cluster file, changed or dropped with it, forgotten once nothing runs.

A VM is never stopped, and never forgotten while it may run, because a line of a file is gone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from fangnetz.core.actions import Action, Alarm, Define, ForgetVm, Happened
from fangnetz.core.identity import shared
from fangnetz.core.model import DROPPED, FROM_CLI, FROM_FILE, REMOVED, ClusterView, VmDoc, VmWish
from fangnetz.core.ownership import may_run, seen_gone
from fangnetz.core.units import ControllerId, HostId, Seconds, VmId

LIVING_S = Seconds(60.0)
"""A controller that has not looked at the store for this long has no say in what the cluster file is."""


def differing_files(view: ClusterView) -> tuple[ControllerId, ...]:
    """Return the controllers that looked lately and read another cluster file than the holder of the lease."""
    if view.lease is None or view.lease.holder not in view.files:
        return ()
    mine = view.files[view.lease.holder]
    return tuple(
        sorted(
            name
            for name, digest in view.files.items()
            if digest not in ("", mine)
            and name in view.controllers
            and abs(view.now - view.controllers[name]) < LIVING_S
        )
    )


class Definitions:
    """What the cluster file, as this controller reads it, makes of the definitions in one tick."""

    def __init__(self, view: ClusterView, declared: Mapping[VmId, VmDoc], hold: tuple[HostId, ...]) -> None:
        """`hold`: hosts unheard in this life of the store; while there are any, nothing is forgotten."""
        self.view, self.declared, self.hold = view, declared, hold
        self.docs: dict[VmId, VmDoc] = {}
        self.actions: list[Action] = []
        self.alarms: list[Alarm] = []

    def decide(self) -> tuple[list[Action], list[Alarm]]:
        differing = differing_files(self.view)
        if differing:
            self._say_they_differ(differing)
        else:
            for vm, doc in sorted(self.declared.items()):
                self._declare(vm, doc)
            for vm, doc in self.view.vms.items():
                if doc.source == FROM_FILE and vm not in self.declared:
                    self._drop(vm, doc)
        for vm, doc in self.view.vms.items():
            if doc.source in (DROPPED, REMOVED) and vm not in self.docs:
                self._leave(vm, doc)
        if self.docs:
            self.actions.insert(0, Define(docs=tuple(self.docs.values())))
        return self.actions, self.alarms

    def _say_they_differ(self, differing: tuple[ControllerId, ...]) -> None:
        lease = self.view.lease
        holder = lease.holder if lease is not None else ""
        sentence = (
            f"{holder} and {', '.join(differing)} read different cluster files: nothing of them is taken up until they "
            "are the same and the controllers were restarted"
        )
        self.alarms.append(Alarm(kind="files_differ", subject=", ".join((holder, *differing)), sentence=sentence))

    def _declare(self, vm: VmId, doc: VmDoc) -> None:
        old = self.view.vms.get(vm)
        if old is None and (self.view.unreadable or vm in self.view.vm_records):
            return  # it may be known, and only not readable: its wish must not be overwritten
        if old is not None and old.source == FROM_CLI:
            if (old.spec, old.xml) != (doc.spec, doc.xml):
                sentence = f"{vm} was added by an operator; the other definition in the cluster file is not used"
                self.alarms.append(Alarm(kind="declared_twice", subject=vm, sentence=sentence))
            return
        others = {**self.view.vms, **self.docs}
        both = shared(doc.spec, others.values())
        if both and (old is None or not set(both) <= set(shared(old.spec, others.values()))):
            other, mark = min(both.items())
            sentence = (
                f"{vm} of the cluster file is not taken up: it has {mark} of {other}; two writers would destroy it. "
                f"If {other} was renamed to it, `fangnetz vm stop {other}` makes room for it"
            )
            self.alarms.append(Alarm(kind="same_disk", subject=vm, sentence=sentence))
            return
        new = replace(doc, wish=self._wish(old, doc), source=FROM_FILE, declared=doc.wish)
        if new == old:
            return
        self.docs[vm] = new
        if old is not None and new.wish is not old.wish:
            self._happened("vm_wish_declared", vm, f"the cluster file now wants {vm} {new.wish}")
        elif old is not None and old.source != FROM_FILE:
            self._happened("vm_declared", vm, f"{vm} is in the cluster file again")

    @staticmethod
    def _wish(old: VmDoc | None, doc: VmDoc) -> VmWish:
        """An operator's wish stays until the file's own wish changes; what was removed begins anew."""
        if old is None or old.source == REMOVED:
            return doc.wish
        return doc.wish if old.declared is not None and old.declared is not doc.wish else old.wish

    def _drop(self, vm: VmId, doc: VmDoc) -> None:
        self.docs[vm] = replace(doc, source=DROPPED)
        self._happened("vm_dropped", vm, f"{vm} is not in the cluster file any more")

    def _leave(self, vm: VmId, doc: VmDoc) -> None:
        """A VM on its way out: forgotten once it is known that no copy of it runs."""
        running = "" if doc.source == REMOVED and seen_gone(self.view, vm) else may_run(self.view, vm)
        busy = any(op.subject == vm for op in self.view.operations.values())
        if not running and not self.hold and not busy:
            self.actions.append(ForgetVm(vm=vm))
            self._happened("vm_forgotten", vm, f"no copy of {vm} runs any more: it is forgotten")
        elif doc.source == DROPPED:
            sentence = (
                f"{vm} is not in the cluster file any more ({running or 'it may run on a host not heard yet'}): it is "
                f"left alone and not recovered. Put it back, `fangnetz vm stop {vm}`, or `fangnetz vm remove {vm}`"
            )
            self.alarms.append(Alarm(kind="vm_dropped", subject=vm, sentence=sentence))

    def _happened(self, kind: str, vm: VmId, sentence: str) -> None:
        self.actions.append(Happened(kind=kind, subject=vm, sentence=sentence, facts={"vm": vm}))
