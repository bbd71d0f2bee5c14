"""Rules between values of the cluster file. Each reads the tree leniently, so that one fault hides no other.

Looks at secrets' places only where the role says that they must exist; never changes anything.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from fangnetz.core.model import NO_RULES, Rules, VmWish
from fangnetz.core.policy import PROFILES, Capacity, Policy, PolicyRefused
from fangnetz.core.rules import RuleBook, contradictions
from fangnetz.core.units import HostId, VmId
from fangnetz.settings.domain_facts import DomainFacts
from fangnetz.settings.faults import KeyPath, did_you_mean
from fangnetz.settings.names import is_address, same_address
from fangnetz.settings.schema import DRIVERS, PolicyShape
from fangnetz.settings.secrets import Secret
from fangnetz.settings.tree import Tree


def check_secrets(tree: Tree, base: Path, role: str) -> None:
    """Exactly one place per secret, a place where one is needed, and something usable in those this role reads.

    A host reads its secrets when it needs them: its file may be checked where they are not.
    """
    for path, needed, readers in _secret_groups(tree):
        file, env = tree.text(*path, "password_file"), tree.text(*path, "password_env")
        inline = any(word in ("password", "passwd", "pass", "secret") for word in tree.keys(*path))
        if file and env:
            tree.fault((*path, "password_env"), "must not stand beside password_file: a secret has one place")
        elif not file and not env and needed and not inline:
            tree.fault((*path, "password_file"), f"is required (or password_env): {needed}", shown="")
        if role in readers:
            for key, secret in (
                ("password_file", Secret(file=base / file) if file else None),
                ("password_env", Secret(env=env) if env else None),
            ):
                if secret is not None and (rule := secret.fault()):
                    tree.fault((*path, key), rule)


def _secret_groups(tree: Tree) -> Iterator[tuple[KeyPath, str, tuple[str, ...]]]:
    """Every group that may name a secret, why it must (or nothing), and which roles must be able to read it."""
    named = tree.keys("redis", "users")
    yield (
        ("redis",),
        "a username needs a password" if tree.text("redis", "username") else "",
        tuple(role for role in ("controller", "flower") if role not in named),
    )
    for user in named:
        yield ("redis", "users", user), "a user of Redis logs in with a password", () if user == "host" else (user,)
    if isinstance(tree.get(("redis", "sentinel_login")), dict):
        yield ("redis", "sentinel_login"), "it is there to name one", ("controller", "flower")
    if isinstance(tree.get(("flower",)), dict):
        yield ("flower",), "Flower can run tasks and is never open", ("flower",)
    for _, path in _devices(tree):
        driver = DRIVERS.get(tree.text(*path, "driver") or "")
        yield path, "this driver logs in" if driver is not None and driver.needs_secret else "", ("controller",)


def check_redis(tree: Tree) -> None:
    """Redis is found in one way; whoever logs in has a login, and no two of them the same name."""
    if not isinstance(tree.get(("redis",)), dict):
        return
    keys = tree.keys("redis")
    if "url" in keys and "sentinels" in keys:
        tree.fault(("redis", "sentinels"), "must not stand beside url: Redis is found in one way")
    elif "url" not in keys and "sentinels" not in keys:
        tree.fault(("redis", "url"), "is required (or sentinels and master)", shown="")
    if "sentinels" in keys and "master" not in keys:
        tree.fault(("redis", "master"), "is required beside sentinels: what they call the Redis they watch", shown="")
    for key in ("master", "sentinel_login"):
        if key in keys and "sentinels" not in keys:
            tree.fault(("redis", key), "goes with sentinels only")
    users = tree.keys("redis", "users")
    if not users:
        return
    names: dict[str, str] = {}
    for user in users:
        name = tree.text("redis", "users", user, "username") or ""
        if not name:
            tree.fault(("redis", "users", user, "username"), "is required: users are told apart by it", shown="")
        elif (other := names.setdefault(name, user)) != user:
            tree.fault(("redis", "users", user, "username"), f"is the name of user {other} too: their rights differ")
    everybody = tree.text("redis", "password_file") or tree.text("redis", "password_env")
    needed = ["controller", "host", "operator", *(["flower"] if tree.get(("flower",)) is not None else [])]
    for user in needed:
        if user not in users and not everybody:
            tree.fault(
                ("redis", "users", user), "is required: where there are users, each who logs in is one", shown=""
            )


def _devices(tree: Tree) -> Iterator[tuple[str, KeyPath]]:
    for host in tree.keys("hosts"):
        for level in range(tree.count("hosts", host, "fencing")):
            for number in range(tree.count("hosts", host, "fencing", level)):
                yield host, ("hosts", host, "fencing", level, number)


def check_slots(tree: Tree) -> None:
    """Slots lie in one place."""
    keys = tree.keys("slots")
    if isinstance(tree.get(("slots",)), dict) and len({"folder", "device"} & set(keys)) != 1:
        tree.fault(("slots",), "must be exactly one of folder and device", shown=" and ".join(keys))


def check_addresses(tree: Tree) -> None:
    """One address is one host, one plug is one device, and no device speaks with its own host's voice."""
    hosts: dict[str, str] = {}
    for host in tree.keys("hosts"):
        address = tree.text("hosts", host, "address")
        if not address or not is_address(address):
            continue
        owner = hosts.setdefault(same_address(address), host)
        if owner != host:
            tree.fault(("hosts", host, "address"), f"is the address of host {owner} too")
    plugs: dict[tuple[str, int | None], str] = {}
    names: set[tuple[str, str]] = set()
    for host, path in _devices(tree):
        name, plug = tree.text(*path, "name"), tree.text(*path, "address")
        if name:
            if (host, name) in names:
                tree.fault((*path, "name"), f"stands twice in the fencing of host {host}")
            names.add((host, name))
        if not plug or not is_address(plug):
            continue
        driver = DRIVERS.get(tree.text(*path, "driver") or "")
        port = tree.number(*path, "port") or (driver.port if driver else None)
        same = same_address(plug)
        if same in hosts:
            tree.fault((*path, "address"), f"is the address of host {hosts[same]}, which is silent when it is dead")
        if (other := plugs.get((same, port))) is None:
            plugs[same, port] = host
        elif other != host:
            tree.fault((*path, "address"), f"is a fence device of host {other} too: it would cut the wrong host")
        else:
            tree.fault((*path, "address"), f"is another device of host {host} already: one plug is one device")


def check_places(tree: Tree, warnings: Tree) -> None:
    """A controller stands on a host there is; and not all of them on one, whose loss nobody would be left to act on."""
    hosts = tree.keys("hosts")
    places: dict[str, str] = {}
    for controller in tree.keys("controllers"):
        key: KeyPath = ("controllers", controller, "host")
        host = tree.text(*key)
        if host is None:
            continue
        if host in hosts:
            places[controller] = host
        elif hosts:
            rule = f"must be a host of this cluster, the one this controller runs on{did_you_mean(host, hosts)}"
            tree.fault(key, rule)
    if len(places) == len(tree.keys("controllers")) and len(set(places.values())) == 1:
        warnings.fault(
            ("controllers", list(places)[-1], "host"),
            "is the host of every controller: when it is lost, nobody is left to fence it and start its VMs elsewhere",
        )


def check_policy(tree: Tree) -> Policy | None:
    """Return the policy, or None after noting each unsafe value with its sum."""
    written = tree.get(("policy",))
    keys = written if isinstance(written, dict) else {}
    profile = keys.get("profile", "default")
    values: dict[str, object] = dict(PROFILES.get(profile, {})) if isinstance(profile, str) else {}
    broken: list[str] = []
    for name, field in PolicyShape.model_fields.items():
        key = field.alias or name
        if ("policy", key) in tree.broken:
            broken.append(key)
        elif name != "profile" and keys.get(key) is not None:
            values[name] = _typed(name, keys[key])
    try:
        return Policy(**values)  # type: ignore[arg-type]  # the shape has judged every value that is left
    except PolicyRefused as refused:
        for fault in refused.faults:
            # A sum over a value that is broken by itself would be a sum over our default: no news.
            if not any(key in fault.rule for key in broken):
                tree.fault(("policy", fault.key), fault.rule, shown=f"{fault.value}")
    return None


def _typed(name: str, value: object) -> object:
    return getattr(PolicyShape.model_validate({name.rstrip("_"): value}), name)


def check_short_vms(tree: Tree) -> None:
    """What the short form of a VM must say together."""
    for vm in tree.keys("vms"):
        path: KeyPath = ("vms", vm)
        if "xml_file" in tree.keys(*path):
            continue
        _check_disk(tree, (*path, "disk"))
        if tree.text(*path, "kernel") is None:
            for key in ("initrd", "cmdline"):
                if tree.text(*path, key) is not None:
                    tree.fault((*path, key), "needs a kernel: without one the guest boots from its disk")
        lease, space = (
            tree.text(*path, "storage_lease", "path"),
            tree.text(*path, "storage_lease", "lockspace"),
        )
        if lease and space and lease.rsplit("/", 1)[-1] != space:
            tree.fault(
                (*path, "storage_lease", "path"),
                f"must be the lockspace's folder (virtlockd's file_lockspace_dir) and end in /{space}",
            )


def _check_disk(tree: Tree, path: KeyPath) -> None:
    if not isinstance(tree.get(path), dict):
        return
    kinds = [kind for kind in ("iscsi", "file", "block") if tree.get((*path, kind)) is not None]
    if len(kinds) != 1:
        tree.fault(path, "must be exactly one of iscsi, file and block", shown=" and ".join(kinds))
    if "file" in kinds and tree.get((*path, "format")) is None:
        tree.fault((*path, "format"), "is required beside file: raw or qcow2 (a guessed format is a hole)")
    if "file" not in kinds and tree.get((*path, "format")) is not None:
        tree.fault((*path, "format"), "goes with file only: iscsi and block are raw")


def check_sizes(tree: Tree, facts: Mapping[VmId, DomainFacts], policy: Policy | None) -> None:
    """Some host must be able to take each VM. Silent while the policy or a host's size is not known."""
    if policy is None or policy.capacity is not Capacity.ENFORCE:
        return
    sizes = [
        (tree.number("hosts", host, "memory_mib"), tree.number("hosts", host, "cpus")) for host in tree.keys("hosts")
    ]
    known = [
        (memory, cpus * policy.cpu_overcommit) for memory, cpus in sizes if memory is not None and cpus is not None
    ]
    if not known or len(known) < len(sizes):
        return
    for vm in tree.keys("vms"):
        fact = facts.get(VmId(vm))
        memory = fact.memory_mib if fact else tree.number("vms", vm, "memory_mib")
        cpus = fact.cpus if fact else (1 if tree.get(("vms", vm, "cpus")) is None else tree.number("vms", vm, "cpus"))
        if memory is None or cpus is None or tree.text("vms", vm, "wish") == VmWish.IGNORED:
            continue
        if not any(memory <= host_memory and cpus <= host_cpus for host_memory, host_cpus in known):
            largest, most = max(host[0] for host in known), max(host[1] for host in known)
            tree.fault(
                ("vms", vm, "xml_file" if fact else "memory_mib"),
                f"makes the VM too large for every host: it needs {memory} MiB and {cpus} cpus, "
                f"no host offers both (most memory {largest} MiB; most cpus with overcommit {most:g})",
            )


def check_placement(tree: Tree) -> None:
    """Placement rules name hosts and VMs of this file, and can hold together on some host."""
    hosts, vms = tree.keys("hosts"), tree.keys("vms")
    rules: dict[VmId, Rules] = {}
    for vm in vms:
        named: dict[str, list[str]] = {}
        for key, known, kind in (("allowed", hosts, "host"), ("together", vms, "VM"), ("apart", vms, "VM")):
            named[key] = [
                _named(tree, ("vms", vm, key, at), known, kind, vm) for at in range(tree.count("vms", vm, key))
            ]
        for host in tree.keys("vms", vm, "preferred"):
            if host not in hosts:
                tree.fault(("vms", vm, "preferred", host), f"must be a host of this cluster{did_you_mean(host, hosts)}")
        rules[VmId(vm)] = Rules(
            allowed=tuple(map(HostId, filter(None, named["allowed"]))),
            strict=tree.get(("vms", vm, "strict")) is not False,
            together=tuple(map(VmId, filter(None, named["together"]))),
            apart=tuple(map(VmId, filter(None, named["apart"]))),
        )
    for vm, why in contradictions(RuleBook(rules), rules).items():
        if rules[vm] == NO_RULES:
            continue  # said where the rule stands
        key = "apart" if tree.count("vms", vm, "apart") else "together" if rules[vm].together else "allowed"
        tree.fault(("vms", vm, key), f"can never be kept: {why}")


def _named(tree: Tree, path: KeyPath, known: tuple[str, ...], kind: str, vm: str) -> str:
    """Return the name at a path if it is one this file knows; a fault and nothing otherwise."""
    name = tree.text(*path)
    if name == vm and kind == "VM":
        tree.fault(path, "must be another VM")
    elif name is not None and name not in known:
        tree.fault(path, f"must be a {kind} of this cluster{did_you_mean(name, known)}")
    elif name is not None:
        return name
    return ""


def check_shared_disks(tree: Tree, facts: Mapping[VmId, DomainFacts]) -> None:
    """No two VMs write one disk, and no two domains have one uuid."""
    disks: dict[str, str] = {}
    uuids: dict[str, str] = {}
    for vm in tree.keys("vms"):
        fact = facts.get(VmId(vm))
        key: KeyPath = ("vms", vm, "xml_file" if fact else "disk")
        for disk in fact.disks if fact else _short_disks(tree, vm):
            first = disks.setdefault(disk, vm)
            if first != vm:
                tree.fault(key, f"has the disk {disk}, which is the disk of VM {first} too: two writers destroy it")
        if fact and fact.uuid:
            first = uuids.setdefault(fact.uuid, vm)
            if first != vm:
                tree.fault(key, f"has the uuid of VM {first}: libvirt takes them for one domain")


def _short_disks(tree: Tree, vm: str) -> Iterator[str]:
    path: KeyPath = ("vms", vm, "disk")
    for kind in ("file", "block"):
        if source := tree.text(*path, kind):
            yield source
    target = tree.text(*path, "iscsi", "target")
    lun = tree.number(*path, "iscsi", "lun")
    if target and (lun is not None or tree.get((*path, "iscsi", "lun")) is None):
        yield f"iscsi {target.lower()}/{1 if lun is None else lun}"
