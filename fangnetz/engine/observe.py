"""One look at the cluster as an executor needs it: the view, the holder's watch brought up to now, every verdict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fangnetz.core.decide import judge_all
from fangnetz.core.detector import Verdict, Watch, look
from fangnetz.core.model import ClusterView, HostSpec
from fangnetz.core.policy import Policy
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
