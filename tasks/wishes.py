"""Public tasks: what `celery call` may ask for. Each writes a wish and nudges the tick; none acts itself.

A message may have waited in its queue for an hour. What touches power or rests on what a person saw therefore says when
that was (`at`, the store's clock: `at` of `fangnetz status --json`) and is refused a minute later. It may
name the boot of the host that was seen (`boot`: `last_boot` of `fangnetz host show --json`): once that is not the last
one any more, it is refused too.

There is no `fangnetz.vm_add`: it would carry a domain XML, and Flower shows arguments. A VM is added by
`fangnetz vm add` or in the cluster file.
"""

from __future__ import annotations

import math
import uuid

from celery import shared_task

from fangnetz.core.decide.wishes import WISH_AGE_MAX_S
from fangnetz.core.errors import WishRefused
from fangnetz.core.model import Wish, WishKind
from fangnetz.core.pause import CLUSTER
from fangnetz.core.units import HostId, Incarnation, Instant
from tasks.runtime import WrongQueue, runtime

SEEN_THERE = "the instant it is said, as `at` of `fangnetz status --json` shows it"


def _wish(
    kind: WishKind,
    subject: str,
    by: str,
    at: Instant | None = None,
    boot: str = "",
    to: HostId | None = None,
    *,
    failback: bool = False,
    reason: str = "",
    for_s: float | None = None,
) -> str:
    parts = runtime()
    if parts.operators is None or parts.nudge is None:
        raise WrongQueue(f"a {parts.role} process takes no wishes")
    said_at = parts.operators.now() if at is None else at
    wish = Wish(
        id=uuid.uuid4().hex,
        kind=kind,
        subject=str(subject),
        by=str(by),
        at=said_at,
        boot=Incarnation(boot),
        to=to,
        failback=failback,
        reason=reason,
        until=None if for_s is None else Instant(said_at + for_s),
    )
    parts.operators.add_wish(wish)
    parts.nudge()
    return f"wish {wish.id} is written: {kind.value} {subject}"


def _wish_said_at(kind: WishKind, subject: str, by: str, at: object, boot: object) -> str:
    """Write a wish that is worth something for a minute after it was said, not after this message was read.

    `boot`: of the host that its writer saw; empty for whichever is the last one known.
    """
    parts = runtime()
    if parts.operators is None:
        raise WrongQueue(f"a {parts.role} process takes no wishes")
    if isinstance(at, bool) or not isinstance(at, (int, float)) or not math.isfinite(at):
        raise WishRefused(f"{kind.value} {subject} is not asked for: it needs `at`, {SEEN_THERE}; it has {at!r}")
    if not isinstance(boot, str):
        raise WishRefused(f"{kind.value} {subject} is not asked for: `boot` names a boot of the host; it is {boot!r}")
    age = parts.operators.now() - at
    if age > WISH_AGE_MAX_S:
        raise WishRefused(f"{kind.value} {subject} is not asked for: {by} said so {age:.0f} s ago: say it again")
    if age < 0:
        raise WishRefused(f"{kind.value} {subject} is not asked for: `at` is {-age:.0f} s ahead; give {SEEN_THERE}")
    return _wish(kind, subject, by, Instant(float(at)), boot)


@shared_task(name="fangnetz.fence")
def fence(host: str, by: str = "celery", at: float | None = None, boot: str = "") -> str:
    """Wish that a host be fenced, in that `boot` if one is named. WishRefused without `at`, or a minute after it."""
    return _wish_said_at(WishKind.HOST_FENCE, host, by, at, boot)


@shared_task(name="fangnetz.confirm_off")
def confirm_off(host: str, by: str, at: float | None = None, boot: str = "") -> str:
    """State, as a named person, that a host (that `boot` of it) is off. WishRefused without `at`, or a minute after."""
    return _wish_said_at(WishKind.HOST_CONFIRM_OFF, host, by, at, boot)


@shared_task(name="fangnetz.activate")
def activate(host: str, by: str = "celery", failback: bool = False) -> str:
    """Wish that a host rejoin or leave maintenance. `failback`: and that its VMs come home."""
    return _wish(WishKind.HOST_ACTIVATE, host, by, failback=bool(failback))


@shared_task(name="fangnetz.evacuate")
def evacuate(host: str, by: str = "celery") -> str:
    """Wish that every VM leave a host while it runs, and that the host be in maintenance then."""
    return _wish(WishKind.HOST_EVACUATE, host, by)


@shared_task(name="fangnetz.maintenance")
def maintenance(host: str, by: str = "celery") -> str:
    """Wish that a host be in maintenance."""
    return _wish(WishKind.HOST_MAINTENANCE, host, by)


@shared_task(name="fangnetz.vm_start")
def vm_start(vm: str, by: str = "celery") -> str:
    """Wish that a VM run."""
    return _wish(WishKind.VM_START, vm, by)


@shared_task(name="fangnetz.vm_stop")
def vm_stop(vm: str, by: str = "celery") -> str:
    """Wish that a VM be stopped."""
    return _wish(WishKind.VM_STOP, vm, by)


@shared_task(name="fangnetz.vm_ignore")
def vm_ignore(vm: str, by: str = "celery") -> str:
    """Wish that a VM be left alone, whatever becomes of it, until it is wished to run or to be stopped."""
    return _wish(WishKind.VM_IGNORE, vm, by)


@shared_task(name="fangnetz.vm_migrate")
def vm_migrate(vm: str, to: str = "", by: str = "celery") -> str:
    """Wish that a VM move to another host while it runs: to `to`, or where there is most room."""
    return _wish(WishKind.VM_MIGRATE, vm, by, to=HostId(str(to)) if to else None)


@shared_task(name="fangnetz.vm_relocate")
def vm_relocate(vm: str, to: str = "", by: str = "celery") -> str:
    """Wish that a VM be stopped, and started on another host: on `to`, or where there is most room."""
    return _wish(WishKind.VM_RELOCATE, vm, by, to=HostId(str(to)) if to else None)


@shared_task(name="fangnetz.cancel")
def cancel(operation: str, by: str = "celery") -> str:
    """Wish that a move under way be ended."""
    return _wish(WishKind.OPERATION_CANCEL, operation, by)


@shared_task(name="fangnetz.vm_remove")
def vm_remove(vm: str, by: str = "celery") -> str:
    """Wish that a VM be forgotten."""
    return _wish(WishKind.VM_REMOVE, vm, by)


@shared_task(name="fangnetz.pause")
def pause(by: str = "celery", reason: str = "", for_s: object = None) -> str:
    """Wish that nothing be ordered in the whole cluster: for `for_s` seconds, or until somebody ends it."""
    if for_s is None:
        return _wish(WishKind.CLUSTER_PAUSE, CLUSTER, by, reason=str(reason))
    if isinstance(for_s, bool) or not isinstance(for_s, (int, float)) or not 1 <= for_s < 1e9:
        raise WishRefused(f"no pause is asked for: `for_s` must be seconds from 1 on; it is {for_s!r}")
    return _wish(WishKind.CLUSTER_PAUSE, CLUSTER, by, reason=str(reason), for_s=float(for_s))


@shared_task(name="fangnetz.resume")
def resume(by: str = "celery") -> str:
    """Wish that a pause end."""
    return _wish(WishKind.CLUSTER_RESUME, CLUSTER, by)
