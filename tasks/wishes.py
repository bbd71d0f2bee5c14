"""Public tasks: what `celery call` or Flower may ask for. Each writes a wish and nudges the tick; none acts itself."""

from __future__ import annotations

import uuid

from celery import shared_task

from fangnetz.core.model import Wish, WishKind
from tasks.runtime import WrongQueue, runtime


def _wish(kind: WishKind, subject: str, by: str) -> str:
    parts = runtime()
    if parts.operators is None or parts.nudge is None:
        raise WrongQueue(f"a {parts.role} process takes no wishes")
    wish = Wish(id=uuid.uuid4().hex, kind=kind, subject=str(subject), by=str(by), at=parts.operators.now())
    parts.operators.add_wish(wish)
    parts.nudge()
    return f"wish {wish.id} is written: {kind.value} {subject}"


@shared_task(name="fangnetz.fence")
def fence(host: str, by: str = "celery") -> str:
    """Wish that a host be fenced."""
    return _wish(WishKind.HOST_FENCE, host, by)


@shared_task(name="fangnetz.confirm_off")
def confirm_off(host: str, by: str) -> str:
    """State, as a named person, that a host is off."""
    return _wish(WishKind.HOST_CONFIRM_OFF, host, by)


@shared_task(name="fangnetz.activate")
def activate(host: str, by: str = "celery") -> str:
    """Wish that a host rejoin or leave maintenance."""
    return _wish(WishKind.HOST_ACTIVATE, host, by)


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


@shared_task(name="fangnetz.vm_remove")
def vm_remove(vm: str, by: str = "celery") -> str:
    """Wish that a VM be forgotten."""
    return _wish(WishKind.VM_REMOVE, vm, by)
