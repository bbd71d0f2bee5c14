"""The placement rules of all VMs, joined: what keeps a VM from a host, and which host it prefers. Pure.

A rule keeps a VM from being put somewhere. It never stops one that runs, and it is never a reason to start one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from fangnetz.core.model import NO_RULES, REMOVED, Rules, VmDoc
from fangnetz.core.units import HostId, VmId

Whereabouts = Mapping[VmId, frozenset[HostId]]
"""The hosts on which VMs run, may run, or will run by a move that is under way; a VM that is nowhere is left out."""


class RuleBook:
    """`together` is symmetric and transitive, `apart` symmetric; those of a group hold for each of its VMs."""

    def __init__(self, rules: Mapping[VmId, Rules] | None = None) -> None:
        self._rules = {vm: given for vm, given in (rules or {}).items() if given.say_something}
        self._groups: dict[VmId, frozenset[VmId]] = {}
        self._apart: dict[VmId, set[VmId]] = {}
        for vm, own in self._rules.items():
            for other in own.together:
                joined = self.group(vm) | self.group(other)
                self._groups.update(dict.fromkeys(joined, joined))
            for other in own.apart:
                self._apart.setdefault(vm, set()).add(other)
                self._apart.setdefault(other, set()).add(vm)

    @classmethod
    def of(cls, docs: Iterable[VmDoc]) -> RuleBook:
        """Return the rules of these definitions; one that is removed has none any more."""
        return cls({doc.spec.id: doc.spec.rules for doc in docs if doc.source != REMOVED})

    def __bool__(self) -> bool:
        """Whether there is any rule."""
        return bool(self._rules)

    def group(self, vm: VmId) -> frozenset[VmId]:
        """Return the VMs that run together with this one, itself included."""
        return self._groups.get(vm, frozenset((vm,)))

    def apart(self, vm: VmId) -> frozenset[VmId]:
        """Return the VMs that never run on one host with this one, nor with its group."""
        return frozenset(other for member in self.group(vm) for other in self._apart.get(member, ()))

    def weight(self, vm: VmId, host: HostId) -> int:
        """Return how much the VM prefers that host; 0 is neither more nor less than any other."""
        rules = self._rules.get(vm, NO_RULES)
        return dict(rules.preferred).get(host, int(not rules.strict and host in rules.allowed))

    def prefers(self, vm: VmId) -> bool:
        """Whether some host is preferred to another one."""
        rules = self._rules.get(vm, NO_RULES)
        return bool(rules.preferred) or (bool(rules.allowed) and not rules.strict)

    def fails_back(self, vm: VmId, default: bool) -> bool:
        """Return whether the VM goes back to a host that it prefers; `default`: what the policy says."""
        own = self._rules.get(vm, NO_RULES).failback
        return default if own is None else own

    def bound(self) -> frozenset[VmId]:
        """Return the VMs that some rule names, of their own or of another one."""
        return frozenset((*self._rules, *self._groups, *self._apart))

    def why_not(self, unit: Collection[VmId], host: HostId, where: Whereabouts) -> str:
        """Return which rule keeps VMs that are put somewhere at once from that host, or an empty string."""
        for vm in unit:
            rules = self._rules.get(vm, NO_RULES)
            if rules.strict and rules.allowed and host not in rules.allowed:
                return f"{host} is not among the hosts allowed for {vm} ({', '.join(sorted(rules.allowed))})"
            for other in sorted(self.apart(vm)):
                if host in where.get(other, ()) or other in unit:
                    return f"{vm} and {other} are to run apart, and {other} is on {host}"
            for other in sorted(self.group(vm) - set(unit)):
                hosts = where.get(other)
                if hosts and host not in hosts:
                    return f"{vm} is to run together with {other}, which is on {' and '.join(sorted(hosts))}"
        return ""


def contradictions(book: RuleBook, rules: Mapping[VmId, Rules]) -> dict[VmId, str]:
    """Return, per VM, why its rules can never hold together, whatever hosts are up; nothing for those that can."""
    found: dict[VmId, str] = {}
    for vm in rules:
        group = book.group(vm)
        both = group & book.apart(vm)
        if both:
            other = min(both - {vm}, default="itself")
            found[vm] = f"{vm} and {other} are to run apart, and together"
            continue
        musts = {
            name: set(rules[name].allowed)
            for name in sorted(group & rules.keys())
            if rules[name].strict and rules[name].allowed
        }
        if musts and not set.intersection(*musts.values()):
            found[vm] = f"{' and '.join(musts)} are to run together, and no host is allowed for all of them"
    return found


def as_tree(rules: Rules) -> dict[str, object]:
    """Return the placement rules of a VM that say anything, in the words of the cluster file."""
    said: dict[str, object] = {
        "allowed": list(rules.allowed),
        "strict": "" if rules.strict or not rules.allowed else False,
        "preferred": dict(rules.preferred),
        "together": list(rules.together),
        "apart": list(rules.apart),
        "failback": "" if rules.failback is None else rules.failback,
    }
    return {key: value for key, value in said.items() if value is False or value}
