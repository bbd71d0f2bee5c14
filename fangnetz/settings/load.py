"""The door: a cluster file in, Settings or every fault out. Never raises anything but SettingsError.

Reads each file once, so that what was checked is what is used.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fangnetz.core.errors import SettingsError
from fangnetz.core.model import VmWish
from fangnetz.core.units import VmId
from fangnetz.settings.build import build_settings
from fangnetz.settings.domain_facts import XML_BYTES_MAX, DomainFacts, read_domain
from fangnetz.settings.faults import KeyPath, SettingsFault, faults_text
from fangnetz.settings.fitness import UnfitLevel, unfit_for_ha
from fangnetz.settings.rules import (
    check_addresses,
    check_placement,
    check_places,
    check_policy,
    check_redis,
    check_secrets,
    check_shared_disks,
    check_short_vms,
    check_sizes,
    check_slots,
)
from fangnetz.settings.shape import check_shape
from fangnetz.settings.tree import Tree, read_tree
from fangnetz.settings.values import Settings

Role = Literal["controller", "host", "flower"]
"""Who reads: a controller needs the fence secrets and every VM's XML, Flower its own password, a host neither.

Only a controller gets VMs. Each needs what it logs in with itself, and nobody else's secret.
"""

FILE_BYTES_MAX = 1 << 20
"""No cluster file is longer; a longer one is not read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """What was found in a file. `settings` is None exactly if there are faults; warnings stop nothing."""

    settings: Settings | None
    faults: tuple[SettingsFault, ...]
    warnings: tuple[SettingsFault, ...]


def load_settings(path: Path, role: Role = "controller") -> Settings:
    """Return the settings, or raise SettingsError with all faults, each `file:line: key: value: rule`."""
    found = inspect_settings(path, role)
    if found.settings is None:
        raise SettingsError(faults_text(found.faults))
    return found.settings


def check_settings(path: Path, role: Role = "controller") -> tuple[SettingsFault, ...]:
    """Return every rule the file breaks, by line. Empty means that `load_settings` would succeed."""
    return inspect_settings(path, role).faults


def inspect_settings(path: Path, role: Role = "controller") -> Inspection:
    """Return settings, faults and warnings of a cluster file. Never raises."""
    tree = _read(path)
    warnings = Tree(file=tree.file, data=tree.data, lines=tree.lines)
    settings: Settings | None = None
    if () not in tree.broken:
        settings = _judge(tree, warnings, path, role)
    return Inspection(
        settings=None if tree.faults else settings,
        faults=tuple(sorted(tree.faults, key=lambda fault: fault.line)),
        warnings=tuple(sorted(warnings.faults, key=lambda fault: fault.line)),
    )


def _judge(tree: Tree, warnings: Tree, path: Path, role: Role) -> Settings | None:
    shape = check_shape(tree)
    if () in tree.broken:
        return None
    everything = role == "controller"
    path = path.absolute()  # a worker may change its folder before it reads a secret
    xmls = _read_domains(tree, path.parent) if everything else {}
    facts = _check_domains(tree, warnings, xmls)
    policy = check_policy(tree)
    check_secrets(tree, path.parent, role)
    check_redis(tree)
    check_slots(tree)
    check_addresses(tree)
    check_places(tree, warnings)
    check_short_vms(tree)
    check_placement(tree)
    check_sizes(tree, facts, policy)
    check_shared_disks(tree, facts)
    if shape is None or policy is None or tree.faults:
        return None
    return build_settings(path, shape, policy, xmls if everything else None)


def _read(path: Path) -> Tree:
    name = os.fsencode(path).decode(errors="replace")
    content, rule = read_text(path, FILE_BYTES_MAX)
    if not rule:
        return read_tree(name, content)
    tree = Tree(file=name)
    tree.breaks((), rule, shown="", line=1)
    return tree


def read_text(path: Path, bytes_max: int) -> tuple[str, str]:
    """Return a file's text and nothing, or nothing and the rule it breaks."""
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            return "", "must be a file"
        if found.st_size > bytes_max:
            return "", f"must be at most {bytes_max} bytes long"
        return path.read_bytes().decode("utf-8-sig"), ""
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        return "", f"must be text in UTF-8, but line {line} is not"
    except (OSError, ValueError) as error:
        return (
            "",
            f"must be a readable file ({(isinstance(error, OSError) and error.strerror) or 'not a path'})",
        )


def _read_domains(tree: Tree, base: Path) -> dict[VmId, str]:
    xmls: dict[VmId, str] = {}
    for vm in tree.keys("vms"):
        key: KeyPath = ("vms", vm, "xml_file")
        file = tree.text(*key)
        if not file:
            continue
        text, rule = read_text(base / file, XML_BYTES_MAX)
        if rule:
            tree.breaks(key, rule)
        else:
            xmls[VmId(vm)] = text
    return xmls


def _check_domains(tree: Tree, warnings: Tree, xmls: Mapping[VmId, str]) -> dict[VmId, DomainFacts]:
    facts: dict[VmId, DomainFacts] = {}
    for vm, xml in xmls.items():
        key: KeyPath = ("vms", vm, "xml_file")
        try:
            fact = read_domain(xml)
            unfit = unfit_for_ha(xml)
        except SettingsError as error:
            tree.breaks(key, f"must name a domain XML: {error}")
            continue
        facts[vm] = fact
        if fact.name != vm:
            tree.fault(key, f"must name the XML of {vm}, but its <name> is {fact.name[:63]!r}")
        ignored = tree.text("vms", vm, "wish") == VmWish.IGNORED
        for item in unfit:
            if item.level is UnfitLevel.REFUSE and not ignored:
                tree.fault(key, f"is unfit for high availability: {item.sentence}")
            else:
                warnings.fault(key, item.sentence)
    return facts
