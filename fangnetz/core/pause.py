"""The pause of the whole cluster: nothing is ordered while it lasts, and what has begun is brought to its end.

Watching, heartbeats, the control lease, questions and records of what is so go on, and so do all alarms: whoever ends
the pause finds a cluster that was watched all the time. Nothing here lets anything start.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from fangnetz.core.actions import Action, Alarm, Granting, Happened, OpenOperation, PutPause
from fangnetz.core.errors import WishRefused
from fangnetz.core.model import ClusterView, PauseDoc, Wish
from fangnetz.core.operations import AT_A_HOST, Facts, OperationKind, Step, StepKind, StepState
from fangnetz.core.units import at_utc

CLUSTER = "cluster"
"""What a wish, an alarm or an event is about that is about none of its parts."""
GOES_ON = frozenset(
    {StepKind.PROVE, StepKind.SEE_RUNNING, StepKind.HAND_OVER, StepKind.RESUME, StepKind.PAUSE, StepKind.CLOSE}
)
"""Steps that order nothing new: they write down what was found, see to it that a guest which has arrived by a move is
not left standing between two hosts, or hold the later of two running copies before both have written for long. The
store's script has the same list (guard.lua)."""
_OPENED = frozenset({OperationKind.RESUME, OperationKind.PAUSE})


def may_be_claimed(step: Step) -> bool:
    """Whether a step may be claimed while the cluster is paused.

    Also one whose executor died, and an order to a host that was claimed before: what came of it has to be found out.
    Nothing is sent by it (`Journal.renew`, `begins`).
    """
    if step.kind in GOES_ON or step.state is StepState.RUNNING:
        return True
    return step.kind in AT_A_HOST and step.attempt > 0


def to_be_withdrawn(step: Step, view: ClusterView) -> str:
    """Return why an order is withdrawn that nobody began to carry out before the pause, or an empty string.

    What it was decided from is old by the time the pause ends; it is decided anew then.
    """
    pause = view.paused
    if pause is None or step.order is None or step.settled or may_be_claimed(step):
        return ""
    return f"{told(pause)}; it had not begun"


def held_back(actions: Iterable[Action]) -> list[Action]:
    """Return what remains of a decision while the cluster is paused: no operation is opened.

    Two are, all the same: a guest that has arrived by a move which began before, and stands still, is let run; and the
    later of two running copies is held, which no pause is worth the disk of.
    """
    return [action for action in actions if not isinstance(action, OpenOperation) or action.operation.kind in _OPENED]


def from_now_on(view: ClusterView, granted: Iterable[Action]) -> ClusterView:
    """Return the view after a wish: a pause holds for all else that its tick decides. What ends one does not: the next
    tick looks first.
    """
    begun = [action.doc for action in granted if isinstance(action, PutPause) and action.doc.lasts(view.now)]
    return replace(view, pause=begun[-1]) if begun else view


def pause(wish: Wish, view: ClusterView) -> Granting:
    """Pause the cluster; said again, the later word about reason and end holds."""
    _refuse_a_part(wish)
    if wish.until is not None and wish.until <= view.now:
        raise WishRefused(f"a pause until {at_utc(wish.until)} is over already: it is {at_utc(view.now)}")
    since = view.paused.since if view.paused is not None else view.now
    doc = PauseDoc(on=True, by=wish.by, reason=wish.reason, since=since, until=wish.until)
    open_ones = len(view.operations)
    sentence = f"{told(doc)}. Hosts are watched and alarms go on"
    if open_ones:
        sentence += f"; {open_ones} open operations begin no further step"
    facts: Facts = {"by": wish.by, "until": doc.until}
    event = Happened(kind="cluster_paused", subject=CLUSTER, sentence=told(doc), facts=facts)
    return [PutPause(doc=doc), event], sentence, None


def resume(wish: Wish, view: ClusterView) -> Granting:
    """End the pause. WishRefused if there is none."""
    _refuse_a_part(wish)
    if view.paused is None:
        raise WishRefused("the cluster is not paused")
    sentence = f"{wish.by} ended the pause: the cluster is looked at as it is now, and decided on again"
    return [PutPause(doc=replace(view.paused, on=False)), _ended(sentence)], sentence, None


def _refuse_a_part(wish: Wish) -> None:
    if wish.subject != CLUSTER:
        raise WishRefused(f"{wish.subject} cannot be paused: only the whole cluster can")


def over(view: ClusterView) -> list[Action]:
    """Return what says that a pause has ended by itself, once."""
    doc = view.pause
    if doc is None or not doc.on or doc.lasts(view.now) or doc.until is None:
        return []
    sentence = f"the pause by {doc.by} was to last until {at_utc(doc.until)} and is over"
    return [PutPause(doc=replace(doc, on=False)), _ended(sentence)]


def _ended(sentence: str) -> Happened:
    return Happened(kind="cluster_resumed", subject=CLUSTER, sentence=sentence, facts={})


def alarms(view: ClusterView) -> list[Alarm]:
    """Return the alarm that stands while the cluster is paused."""
    doc = view.paused
    return [] if doc is None else [Alarm(kind="paused", subject=CLUSTER, sentence=f"{told(doc)}. {HOW_TO_END}")]


HOW_TO_END = "`fangnetz resume` ends it"


def told(doc: PauseDoc) -> str:
    """Return who paused the cluster, since when, why and until when, as a person would say it."""
    why = f" ({doc.reason})" if doc.reason else ""
    end = f" until {at_utc(doc.until)}" if doc.until is not None else " until somebody ends it"
    return f"the cluster is paused by {doc.by}{why} since {at_utc(doc.since)}{end}: nothing is ordered"
