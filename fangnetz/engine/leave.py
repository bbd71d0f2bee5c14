"""A host's goodbye: it is announced, then waited for until the controllers have dealt with what runs there.

Stops and moves nothing itself: controllers decide, the host worker carries out. It waits no longer than somebody can
act: where no controller and no store answer for a while, the host goes down as it is and is watched as any other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from fangnetz.core.errors import FangnetzError
from fangnetz.core.leaving import goodbye_bound_s, leaving, not_let_go, said_goodbye
from fangnetz.core.model import ClusterView, HostSpec, Leaving
from fangnetz.core.policy import Policy
from fangnetz.core.units import HostId, Seconds, VmId
from fangnetz.ports import BootFiles, Process, Store

LOOK_S = Seconds(0.5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Goodbye:
    """How it went. `complete`: every VM of ours is released, and its silence from now on is no failure."""

    complete: bool
    left: tuple[VmId, ...]
    sentence: str


class LeaveHost:
    """One host's goodbye, carried out on that host."""

    def __init__(
        self,
        *,
        host: HostId,
        hosts: Mapping[HostId, HostSpec],
        store: Store,
        boot: BootFiles,
        policy: Policy,
        process: Process,
        tell: Callable[[str], None] = lambda _sentence: None,
    ) -> None:
        self._host, self._hosts, self._store, self._boot = host, hosts, store, boot
        self._policy, self._process, self._tell = policy, process, tell

    def stay(self) -> None:
        """Take the announcement back: this host takes VMs again."""
        self._boot.leave(Leaving.NO)

    def leave(self, how: Leaving) -> Goodbye:
        """Announce it and wait until the goodbye is complete, is taken back, or cannot be waited for any longer."""
        self._boot.leave(how)
        began = heard_at = self._process.monotonic()
        most, why = 0, ""
        left: tuple[VmId, ...] = ()
        while True:
            now = self._process.monotonic()
            view, trouble = self._look()
            if view is not None and view.holder is not None:
                heard_at = now
            if view is not None and leaving(view, self._host) is not None and self._of_this_boot(view):
                left = not_let_go(view, self._host)
                if said_goodbye(view, self._host):
                    return Goodbye(complete=True, left=(), sentence=f"{self._host} has let go every VM")
                most = max(most, len(left))
                trouble = f"{len(left)} VMs are still here: {', '.join(left)}"
            if trouble and trouble != why:
                why = trouble
                self._tell(why)
            if self._boot.leaving() is Leaving.NO:
                return Goodbye(complete=False, left=left, sentence=f"{self._host} stays: it was taken back")
            if now - heard_at >= self._policy.startup_grace_s:
                told = f"no controller is in charge for {self._policy.startup_grace_s:g} s"
                return self._given_up(left, f"{told}; {why}" if why else told)
            if now - began >= goodbye_bound_s(self._policy, most):
                return self._given_up(left, why or "its worker has not announced it")
            self._process.sleep(LOOK_S)

    def _look(self) -> tuple[ClusterView | None, str]:
        try:
            return self._store.view(self._hosts, None), ""
        except (FangnetzError, OSError) as error:
            return None, str(error)

    def _of_this_boot(self, view: ClusterView) -> bool:
        return view.heartbeats[self._host].incarnation == self._boot.incarnation

    def _given_up(self, left: tuple[VmId, ...], why: str) -> Goodbye:
        sentence = f"{self._host} goes down without a whole goodbye, and is watched as any other: {why}"
        return Goodbye(complete=False, left=left, sentence=sentence)
