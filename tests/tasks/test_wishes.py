"""Public tasks write wishes; what touches power is worth a minute from when it was said, however late it is read."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from fangnetz.core.errors import WishRefused
from fangnetz.core.model import WishKind
from fangnetz.core.units import Instant
from tasks import runtime, wishes
from tests.contract.subjects import RedisSubject
from tests.redis_server import RedisServer

POWER = pytest.mark.parametrize(
    ("task", "kind"),
    [(wishes.fence, WishKind.HOST_FENCE), (wishes.confirm_off, WishKind.HOST_CONFIRM_OFF)],
    ids=["fence", "confirm_off"],
)


class Asked:
    """What reaches the store through the public tasks of a `work` process."""

    def __init__(self, subject: RedisSubject) -> None:
        self.store = subject.store
        self.store.meet()
        self.nudges = 0

    def nudge(self) -> None:
        self.nudges += 1

    @property
    def wishes(self) -> list[tuple[WishKind, str, str, Instant]]:
        return [(w.kind, w.subject, w.by, w.at) for w in self.store.view({}, None).wishes]


@pytest.fixture
def asked(redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Asked]:
    subject = RedisSubject(redis_server)
    made = Asked(subject)
    parts = runtime.Runtime(role="work", operators=made.store, nudge=made.nudge)
    monkeypatch.setattr(runtime, "_runtime", parts)
    yield made
    subject.close()


@POWER
def test_a_wish_for_power_carries_the_instant_it_was_said_at(asked: Asked, task: object, kind: WishKind) -> None:
    said = Instant(asked.store.now() - 30)
    task.run("h1", "ada", said)  # type: ignore[attr-defined]
    assert asked.wishes == [(kind, "h1", "ada", said)]
    assert asked.nudges == 1


@POWER
@pytest.mark.parametrize(
    ("age", "why"), [(61, "61 s ago: say it again"), (3600, "3600 s ago: say it again"), (-5, "ahead")]
)
def test_a_wish_for_power_that_was_said_too_long_ago_or_later_is_not_written(
    asked: Asked, task: object, kind: WishKind, age: float, why: str
) -> None:
    with pytest.raises(WishRefused, match=why):
        task.run("h1", "ada", asked.store.now() - age)  # type: ignore[attr-defined]
    assert (asked.wishes, asked.nudges) == ([], 0), kind


@POWER
def test_a_wish_for_power_may_name_the_boot_it_means(asked: Asked, task: object, kind: WishKind) -> None:
    task.run("h1", "ada", asked.store.now(), boot="i1")  # type: ignore[attr-defined]
    (written,) = asked.store.view({}, None).wishes
    assert (written.kind, written.boot) == (kind, "i1")
    with pytest.raises(WishRefused, match="boot"):
        task.run("h1", "ada", asked.store.now(), boot=5)  # type: ignore[attr-defined]


@POWER
@pytest.mark.parametrize("at", [None, "now", True, float("nan"), float("inf")])
def test_a_wish_for_power_that_does_not_say_when_is_not_written(
    asked: Asked, task: object, kind: WishKind, at: object
) -> None:
    with pytest.raises(WishRefused, match="fangnetz status --json"):
        task.run("h1", by="ada", at=at)  # type: ignore[attr-defined]
    assert asked.wishes == [], kind


def test_other_wishes_count_from_when_they_are_read(asked: Asked) -> None:
    before = asked.store.now()
    wishes.vm_start.run("web", "ada")
    ((kind, subject, by, at),) = asked.wishes
    assert (kind, subject, by) == (WishKind.VM_START, "web", "ada")
    assert before < at < asked.store.now()


def test_the_cluster_is_paused_for_a_span_from_when_it_is_read(asked: Asked) -> None:
    before = asked.store.now()
    wishes.pause.run("ada", "new switch", for_s=60)
    (written,) = asked.store.view({}, None).wishes
    assert (written.kind, written.subject, written.reason) == (WishKind.CLUSTER_PAUSE, "cluster", "new switch")
    assert written.until is not None
    assert before + 60 < written.until < asked.store.now() + 60


def test_the_cluster_is_paused_without_an_end_and_resumed(asked: Asked) -> None:
    wishes.pause.run("ada")
    wishes.resume.run("ada")
    kinds = [(wish.kind, wish.until) for wish in asked.store.view({}, None).wishes]
    assert kinds == [(WishKind.CLUSTER_PAUSE, None), (WishKind.CLUSTER_RESUME, None)]


@pytest.mark.parametrize("span", [0, -1, True, "2h", float("nan"), float("inf")])
def test_a_pause_for_no_span_is_not_written(asked: Asked, span: object) -> None:
    with pytest.raises(WishRefused, match="for_s"):
        wishes.pause.run("ada", for_s=span)
    assert asked.wishes == []
