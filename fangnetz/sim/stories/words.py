"""The words of a scenario file: which verbs and keys there are, and which of them the product cannot do yet."""

from __future__ import annotations

from collections.abc import Mapping

NOT_BUILT_KEYS: Mapping[str, tuple[str, ...]] = {
    "host": ("watchdog",),
}  # fmt: skip

OF_HOST = ("power_off", "unplug", "power_on", "reset", "reboot", "shutdown", "kill_worker", "activate",
           "evacuate", "fence", "confirm_off")  # fmt: skip
OF_CONTROLLER = ("kill_controller", "start_controller")
OF_MACHINE = ("freeze", "thaw")
OF_VM = ("vm_crash", "guest_hang", "io_error", "start", "stop", "ignore", "remove")
OF_CLUSTER = ("pause", "resume")
KILL_ROLL = "kill_roll"
RESUMPTIONS = ("go_on", "again", "ran")
WITH_WORDS: Mapping[str, tuple[str, ...]] = {
    "cut": ("host", "links", "direction"),
    "heal": ("host", "links", "direction"),
    "libvirt": ("host", "state"),
    "bmc": ("host", "device", "state", "with"),
    "redis": ("state", "seconds"),
    "messages": ("drop", "duplicate", "delay", "for"),
    "clock": ("host", "jump_s"),
    "load": ("vm", "cpus_used", "memory_used_mib"),
    "start_fails": ("vm", "hosts", "times"),
    "stop_fails": ("vm", "times"),
    "migrate_fails": ("vm", "times"),
    "migrate": ("vm", "to"),
    "relocate": ("vm", "to"),
    "start_by_hand": ("vm", "host"),
    "roll": ("hosts", "run_s", "reboots", "fails_on", "resume"),
    "strike": ("at_point", "process", "subject", "action", "seconds"),
    "add": (),
}
"""Verbs that take a group of words."""
VERBS = (*OF_HOST, *OF_CONTROLLER, *OF_MACHINE, *OF_VM, *WITH_WORDS, "partition", *OF_CLUSTER, KILL_ROLL)
WISHES = (
    "activate",
    "evacuate",
    "fence",
    "confirm_off",
    "start",
    "stop",
    "ignore",
    "remove",
    "add",
    "migrate",
    "relocate",
    *OF_CLUSTER,
)

STORE_STATES = ("ok", "down", "hung", "wiped", "rolled-back", "failover")
LIBVIRT_STATES = ("ok", "hung", "dead")
BMC_STATES = ("ok", "dark", "lying", "slow", "wrong-password", "swapped")
DIRECTIONS = ("both", "in", "out")
LINKS = ("cluster", "storage", "bmc")
ROLES = ("host", "control", "work", "fence", "beat")
STRIKES = ("kill", "freeze")
REDIS = "redis"


def not_built(kind: str, word: str) -> str:
    """Return why a word that the language knows is refused."""
    return f"is not built yet: the product does not do what the {kind} {word} asks for"
