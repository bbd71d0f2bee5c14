"""One run: a lab of living hosts, busy loops on all cores, and everything the cluster says meanwhile."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

from fangnetz.core.errors import StoreUnreachable
from fangnetz.lab.lab import Lab
from fangnetz.lab.onlooker import Onlooker
from fangnetz.lab.plan import Policy
from fangnetz.lab.soak_idle.burners import saturated
from fangnetz.lab.soak_idle.tally import Tally
from fangnetz.lab.stage import staged
from fangnetz.lab.whereabouts import places

HOSTS = 3
VMS = 4
LOOK_EVERY_S = 0.2
AFTERMATH_S = 10.0
"""What was decided under load may show itself a little later."""
PROGRESS_EVERY_S = 30.0


def soak(name: str, policy: Policy, minutes: float, say: Callable[[str], None]) -> dict[str, Any]:
    """Saturate the machine for so many minutes; return what was counted. LabError if the lab does not come up."""
    say(f"policy {policy}: bringing a lab up")
    with staged(name=name, hosts=HOSTS, vms=VMS, policy=policy) as lab:
        onlooker = Onlooker(lab)
        onlooker.wait_until_calm()
        tally = Tally()
        after = onlooker.latest_event()
        before = places(lab)
        began = time.monotonic()
        loads: list[float] = []
        with saturated() as burners:
            say(f"policy {policy}: {burners} busy loops on {os.cpu_count()} cores for {minutes:g} minutes")
            after, away = _watch(onlooker, tally, after, minutes * 60, loads, say)
        after, more_away = _watch(onlooker, tally, after, AFTERMATH_S, [], say)
        overlaps, now = len(lab.witness()["overlaps"]), places(lab)
        return {
            "policy": policy,
            "seconds": round(time.monotonic() - began, 1),
            "busy_loops": burners,
            "cores": os.cpu_count(),
            "load_1min": {"first": round(loads[0], 2), "max": round(max(loads), 2)},
            "other_labs": len([each for each in Lab.names() if each != lab.name]),
            "window_s": onlooker.policy.window_s,
            "longest_silence_s": {host: round(span, 2) for host, span in sorted(tally.silence_s.items())},
            "host_states": dict(tally.states),
            "failovers": tally.failovers,
            "fences": tally.fences,
            "overlaps": overlaps,
            "moved_vms": sorted(vm for vm in before if before[vm] != now[vm]),
            "store_unreachable": away + more_away,
            "events": tally.told,
            "faults": tally.faults(overlaps),
        }


def _watch(
    onlooker: Onlooker, tally: Tally, after: str, seconds: float, loads: list[float], say: Callable[[str], None]
) -> tuple[str, int]:
    """Take in events and heartbeats for so long; return the last event's id and how often the store was away."""
    until = time.monotonic() + seconds
    told_at = time.monotonic()
    away = 0
    while (now := time.monotonic()) < until:
        loads.append(os.getloadavg()[0])
        try:
            tally.heartbeats(onlooker.heard_at())
            for event in onlooker.events_after(after):
                tally.event(event.at, event.kind, event.facts, event.sentence)
                after = event.id
        except StoreUnreachable:
            away += 1
        if now - told_at > PROGRESS_EVERY_S:
            told_at = now
            worst = max(tally.silence_s.values(), default=0.0)
            say(f"  {until - now:.0f} s to go; load {loads[-1]:.1f}, longest silence of a host {worst:.1f} s")
        time.sleep(LOOK_EVERY_S)
    return after, away
