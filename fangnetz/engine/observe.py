"""One look at the cluster as an executor needs it: the view, the holder's watch brought up to now, every verdict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fangnetz.core.decide import judge_all
from fangnetz.core.detector import Verdict, Watch, look
from fangnetz.core.model import ClusterView, HostSpec
from fangnetz.core.policy import Policy
from fangnetz.core.roll.values import Seen
from fangnetz.core.units import HostId
from fangnetz.ports import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    view: ClusterView
    watch: Watch
    verdicts: Mapping[HostId, Verdict]


def observe(store: Store, hosts: Mapping[HostId, HostSpec], policy: Policy) -> Observation:
    """Read the store and judge every host with what the holder of the control lease has watched so far.

    Without a published watch nothing is silent yet: an executor never calls a host lost on its own first look.
    """
    published = store.holder_watch()
    view = store.view(hosts, None)
    watch = look(published, view, policy)
    return Observation(view=view, watch=watch, verdicts=judge_all(view, watch, policy))


def overlook(store: Store, hosts: Mapping[HostId, HostSpec], policy: Policy) -> Seen:
    """Read what a person or their command goes by. Nobody is judged while no controller watches; `unwatched` says why.

    A first look of one's own would call everybody alive.
    """
    published = store.holder_watch()
    view = store.view(hosts, None)
    unwatched = _unwatched(published, view, policy)
    watch = None if unwatched else look(published, view, policy)
    verdicts = judge_all(view, watch, policy) if watch is not None else {}
    return Seen(view=view, watch=watch, unwatched=unwatched, verdicts=verdicts, alarms=store.alarms(), policy=policy)


def _unwatched(watch: Watch | None, view: ClusterView, policy: Policy) -> str:
    """Return why no verdict can be given, or an empty string."""
    if watch is None:
        return "no controller watches"
    if watch.life != view.life.incarnation:
        return "the store has begun a new life; no controller has watched since"
    if view.now - watch.looked_at > policy.gap_s:
        return f"no controller has looked for {view.now - watch.looked_at:.0f} s"
    return ""
