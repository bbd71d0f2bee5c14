"""What is asked of a host's fence devices and remembered of their answers, while it lives and when it is overdue.

Questions only: nothing here switches anything or changes a host's state.
"""

from __future__ import annotations

from dataclasses import replace

from fangnetz.core.actions import Alarm, AskPower, Remember
from fangnetz.core.detector import Verdict
from fangnetz.core.fencing import bind, holds, is_protected, protection, unbind, waits_for_files
from fangnetz.core.model import Binding, ClusterView, Heartbeat, HostRecord, HostSpec, Power
from fangnetz.core.policy import Policy
from fangnetz.core.units import DeviceName, Instant

ASK_PAUSE_MAX_S = 10.0
"""A silent host's fence device is asked again after this long at the latest."""


def bindings_to_remember(
    spec: HostSpec, view: ClusterView, verdict: Verdict, beat: Heartbeat | None, policy: Policy
) -> list[Remember]:
    """Return what the latest readings of a living host's devices teach about whose plug they are."""
    if beat is None or not verdict.fresh:
        return []
    found = [Remember(binding=one) for one in _spoilt(spec, view, beat)]
    for reading in view.readings.get(spec.id, ()):
        made = bind(reading, beat)
        if made is None:
            continue
        shared = any(b.guid == made.guid and b.host != made.host for b in view.bindings.values())
        if made.guid_matches and shared:
            made = replace(made, guid_matches=None)  # a GUID that two hosts carry names neither
        old = view.bindings.get((spec.id, reading.device))
        same = old is not None and replace(old, seen_on_at=made.seen_on_at) == made
        if not same or (old and made.seen_on_at - old.seen_on_at >= policy.binding_check_s / 2):
            found.append(Remember(binding=made))
    return found


def _spoilt(spec: HostSpec, view: ClusterView, beat: Heartbeat) -> list[Binding]:
    """Return the bindings of every level that reads OFF, all of it, although the host reports: one feed of two may."""
    latest = {reading.device: reading for reading in view.readings.get(spec.id, ()) if reading.power is Power.OFF}
    if not latest:
        return []
    found: dict[DeviceName, Binding] = {}
    for level in spec.fencing:
        spoilt = {
            device: unbind(latest[device], beat, view.bindings.get((spec.id, device))) if device in latest else None
            for device in level
        }
        if all(spoilt.values()):
            found.update({device: one for device, one in spoilt.items() if one is not None})
    return [one for device, one in found.items() if not view.bindings[spec.id, device].read_off]


def power_to_ask(
    spec: HostSpec, record: HostRecord, view: ClusterView, verdict: Verdict, beat: Heartbeat | None, policy: Policy
) -> AskPower | None:
    """Return the question that is due now: early for an overdue host, now and then for a living one."""
    devices = _to_check(spec, view, verdict, beat, policy) if verdict.fresh else _devices(spec)
    if not devices:
        return None
    asked = max((r.asked_at for r in view.readings.get(spec.id, ())), default=Instant(0.0))
    since = view.now - asked
    if verdict.fresh:
        due = since >= max(2.0, 2 * policy.heartbeat_s)
        return AskPower(host=spec.id, devices=devices, why="is the fence path sound?") if due else None
    if not verdict.incarnation or verdict.silent_for < policy.overdue_s:
        return None
    if since < min(ASK_PAUSE_MAX_S, max(0.9 * policy.tick_s, verdict.silent_for / 10)):
        return None
    proven = record.proof if holds(view, record.proof, verdict.incarnation) else None
    if proven is not None and not waits_for_files(view, proven, policy.startup_grace_s):
        return None
    return AskPower(host=spec.id, devices=devices, why=verdict.sentence)


def _devices(spec: HostSpec) -> tuple[DeviceName, ...]:
    return tuple(dict.fromkeys(device for level in spec.fencing for device in level))


def _to_check(
    spec: HostSpec, view: ClusterView, verdict: Verdict, beat: Heartbeat | None, policy: Policy
) -> tuple[DeviceName, ...]:
    """Return the devices of a living host of which it is not known, or was too long ago, that they switch this boot."""
    found: dict[DeviceName, None] = {}
    for level in spec.fencing:
        for device in level:
            known = view.bindings.get((spec.id, device))
            if (
                known is None
                or known.incarnation != verdict.incarnation
                or known.read_off
                or (known.guid_matches is None and beat is not None and beat.bmc_guids)
                or view.now - known.seen_on_at >= policy.binding_check_s
            ):
                found[device] = None
    return tuple(found)


def protection_alarm(spec: HostSpec, view: ClusterView, verdict: Verdict) -> list[Alarm]:
    """Return an alarm if a living host could not be fenced now."""
    if not verdict.fresh or is_protected(view, spec, verdict.incarnation):
        return []
    sentences = protection(view, spec, verdict.incarnation).sentences
    sentence = f"{spec.id} could not be fenced now: {'; '.join(sentences)}"
    return [Alarm(kind="not_protected", subject=spec.id, sentence=sentence)]
