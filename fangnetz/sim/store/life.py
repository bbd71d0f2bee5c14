"""Scripts about the store's life and who may decide in it: meet.lua, take_lease.lua, drop_lease.lua."""

from __future__ import annotations

from fangnetz.core.model import ControlLease, StoreLife
from fangnetz.core.units import ControllerId, Epoch, Instant, Seconds, StoreIncarnation
from fangnetz.sim.store.memory import Memory, instant, micros


def now(m: Memory) -> Instant:
    return instant(m.now_us())


def meet(m: Memory, seen: Instant) -> StoreLife:
    """Register the present life; another memory begins a new one after what was `seen`, and drops the control lease."""
    if m.life is None or m.life[0] != m.identity:
        m.go_on_after(micros(seen))
        at = m.now_us()
        m.life = (m.identity, str(at), at)
        m.holder, m.lease_until, m.lease_memory = None, 0, None
    return StoreLife(incarnation=StoreIncarnation(m.life[1]), since=instant(m.life[2]))


def take_lease(m: Memory, controller: ControllerId, ttl: Seconds, seen: Epoch) -> ControlLease | None:
    at = m.now_us()
    if m.life is None or m.life[0] != m.identity or at < m.life[2] + micros(ttl):
        return None
    mine = m.holder == controller
    if m.holder is not None and not mine and m.lease_until > at:
        return None
    if not mine or m.lease_until <= at:
        m.epoch = m.next_number(m.epoch, seen)
    m.holder, m.lease_until, m.lease_memory = controller, at + micros(ttl), m.identity
    return ControlLease(holder=controller, epoch=Epoch(m.epoch), until=instant(m.lease_until))


def drop_lease(m: Memory, controller: ControllerId) -> None:
    if m.holder == controller:
        m.lease_until = 0


def unfinished(m: Memory, controller: ControllerId) -> bool:
    return m.holder == controller and bool(m.open)


def control_lease(m: Memory) -> ControlLease | None:
    if m.holder is None:
        return None
    return ControlLease(holder=ControllerId(m.holder), epoch=Epoch(m.epoch), until=instant(m.lease_until))
