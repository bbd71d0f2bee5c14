"""Operators' wishes: each is granted or refused once, with a sentence, by the same tick that decides all else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from fangnetz.core.actions import (
    Action,
    Granting,
    OpenOperation,
    SettleWish,
)
from fangnetz.core.decide.fence_wishes import confirm_off, confirm_off_outside, fence
from fangnetz.core.decide.maintenance import activate, evacuate, maintain
from fangnetz.core.decide.mending import how_to_mend
from fangnetz.core.decide.moves import cancel, move
from fangnetz.core.decide.vm_wishes import add, forget, ignore, remove, start, stop
from fangnetz.core.detector import Verdict, Watch
from fangnetz.core.errors import WishRefused
from fangnetz.core.model import (
    ClusterView,
    PauseDoc,
    Wish,
    WishKind,
)
from fangnetz.core.pause import HOW_TO_END, pause, resume, told
from fangnetz.core.policy import Policy
from fangnetz.core.quorum import unheard_in_this_life
from fangnetz.core.units import Epoch, HostId, VmId


def decide_wish(
    wish: Wish, view: ClusterView, watch: Watch, verdicts: Mapping[HostId, Verdict], policy: Policy, epoch: Epoch
) -> list[Action]:
    """Return the actions that carry out or refuse one wish; the last one settles it.

    Granted once more, after a crash before it was settled, a wish has no effect that it did not have already.
    """
    try:
        _refuse_if_stale(wish, view)
        actions, sentence, operation = _grant(wish, view, watch, verdicts, policy, epoch)
        if view.paused is not None and wish.kind not in _ABOUT_THE_PAUSE:
            sentence = _in_the_pause(actions, sentence, view.paused)
    except WishRefused as refusal:
        return [SettleWish(wish=wish, granted=False, sentence=str(refusal))]
    return [*actions, SettleWish(wish=wish, granted=True, sentence=sentence, operation=operation)]


_ABOUT_THE_PAUSE = frozenset({WishKind.CLUSTER_PAUSE, WishKind.CLUSTER_RESUME})


def _in_the_pause(actions: Iterable[Action], sentence: str, pause: PauseDoc) -> str:
    """Return what is answered to a wish while the cluster is paused. WishRefused if it would order something now.

    What is only written down is kept: the tick that follows the pause sees it.
    """
    if any(isinstance(action, OpenOperation) for action in actions):
        raise WishRefused(f"{told(pause)}. {HOW_TO_END}; then say it again")
    return f"{sentence}; the cluster is paused, and what follows from it is ordered only afterwards"


WISH_AGE_MAX_S = 60.0
"""A wish that touches power or rests on what a person saw is not carried out later than this."""


def _refuse_if_stale(wish: Wish, view: ClusterView) -> None:
    age = view.now - wish.at
    if wish.kind in (WishKind.HOST_FENCE, WishKind.HOST_CONFIRM_OFF) and age > WISH_AGE_MAX_S:
        raise WishRefused(f"the wish is {age:.0f} s old; what {wish.by} saw then need not be so now: say it again")


def _grant(  # noqa: PLR0911, PLR0912 - one case a kind of wish
    wish: Wish, view: ClusterView, watch: Watch, verdicts: Mapping[HostId, Verdict], policy: Policy, epoch: Epoch
) -> Granting:
    match wish.kind:
        case WishKind.HOST_FENCE:
            return fence(wish, _host(wish, view), view, verdicts, epoch)
        case WishKind.HOST_CONFIRM_OFF if wish.subject in view.outside:
            return confirm_off_outside(wish, HostId(wish.subject), view, watch, policy)
        case WishKind.HOST_CONFIRM_OFF:
            return confirm_off(wish, _host(wish, view), view, verdicts, policy, epoch)
        case WishKind.HOST_ACTIVATE:
            return activate(wish, _host(wish, view), view, verdicts, policy)
        case WishKind.HOST_MAINTENANCE:
            return maintain(wish, _host(wish, view), view)
        case WishKind.HOST_EVACUATE:
            return evacuate(wish, _host(wish, view), view, watch, verdicts, policy)
        case WishKind.VM_ADD:
            return add(wish, view, unheard_in_this_life(view, watch, policy), policy)
        case WishKind.VM_START:
            return start(_vm(wish, view), view)
        case WishKind.VM_IGNORE:
            return ignore(_vm(wish, view), view)
        case WishKind.VM_STOP:
            return stop(_vm(wish, view), view)
        case WishKind.VM_MIGRATE | WishKind.VM_RELOCATE:
            return move(wish, _vm(wish, view), view, watch, verdicts, policy, epoch)
        case WishKind.OPERATION_CANCEL:
            return cancel(wish, view)
        case WishKind.CLUSTER_PAUSE:
            return pause(wish, view)
        case WishKind.CLUSTER_RESUME:
            return resume(wish, view)
        case WishKind.VM_REMOVE if wish.subject in view.unreadable_records:
            return forget(wish, VmId(wish.subject), view, unheard_in_this_life(view, watch, policy), policy)
        case WishKind.VM_REMOVE:
            hold = unheard_in_this_life(view, watch, policy)
            return remove(wish, _vm(wish, view), view, verdicts, hold)


def _host(wish: Wish, view: ClusterView) -> HostId:
    host = HostId(wish.subject)
    if host not in view.hosts:
        raise WishRefused(f"{wish.subject} is no host of this cluster; it has {', '.join(sorted(view.hosts))}")
    return host


def _vm(wish: Wish, view: ClusterView) -> VmId:
    vm = VmId(wish.subject)
    if vm in view.unreadable_vms:
        raise WishRefused(how_to_mend(view)[vm])
    if vm not in view.vms:
        raise WishRefused(f"{wish.subject} is no VM of this cluster")
    return vm
