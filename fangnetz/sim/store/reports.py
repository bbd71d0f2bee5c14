"""What hosts and controllers report: heartbeat.lua, and the plain writes beside it."""

from __future__ import annotations

from dataclasses import replace

from fangnetz.core.detector import Watch
from fangnetz.core.model import Heartbeat, PowerReading, ProbeRound
from fangnetz.core.units import ControllerId, Instant
from fangnetz.sim.store.memory import PAST_BOOTS_MAX, PROBE_ROUNDS_MAX, WATCH_TTL_S, Memory, instant


def put_heartbeat(m: Memory, beat: Heartbeat) -> Instant | None:
    """Write a report; None if a later boot reported before: then it is written down as contested."""
    old = m.beats.get(beat.host)
    if old is not None and old.incarnation == beat.incarnation and old.sequence >= beat.sequence:
        return old.received_at
    at = instant(m.now_us())
    since, contested = at, Instant(0.0)
    if old is not None:
        contested = old.contested_at
        if old.incarnation == beat.incarnation:
            since = old.boot_since
        else:
            past = m.past.get(beat.host, ())
            if beat.incarnation in past:
                m.beats[beat.host] = replace(old, contested_at=at)
                return None
            m.past[beat.host] = (old.incarnation, *past)[:PAST_BOOTS_MAX]
    m.beats[beat.host] = replace(beat, received_at=at, boot_since=since, contested_at=contested)
    return at


def put_watch(m: Memory, controller: ControllerId, watch: Watch) -> None:
    m.watches[controller] = (watch, m.raw_us() + WATCH_TTL_S * 1_000_000)


def holder_watch(m: Memory) -> Watch | None:
    watch, until = m.watches.get(m.holder or "", (None, 0))
    return watch if until > m.raw_us() else None


def put_files(m: Memory, controller: ControllerId, digest: str) -> None:
    m.files[controller] = digest


def put_probe_round(m: Memory, probe: ProbeRound) -> None:
    m.probes[probe.prober] = (probe, *m.probes.get(probe.prober, ()))[:PROBE_ROUNDS_MAX]


def put_reading(m: Memory, reading: PowerReading) -> None:
    m.power[reading.host] = {**m.power.get(reading.host, {}), reading.device: reading}
