"""A wish is noticed before the next beat, once, and a store that does not answer silences nobody for good."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import cast

import pytest

from fangnetz.core.errors import StoreUnreachable
from fangnetz.ports import Operators
from workers import controller
from workers.controller import Ear

EVERY_S = 0.001


class Waiting:
    """Answers one count after another, None being no answer, and is done once the last one was asked for."""

    def __init__(self, *answers: int | None) -> None:
        self._answers: Iterator[int | None] = iter(answers)
        self.over = threading.Event()

    def wishes_waiting(self) -> int:
        answer = next(self._answers, -1)
        if answer == -1:
            self.over.set()
            return 0
        if answer is None:
            raise StoreUnreachable("no answer")
        return answer


def rings(*answers: int | None) -> int:
    rung: list[int] = []
    store = Waiting(*answers)
    ear = Ear(cast("Operators", store), lambda: rung.append(1), EVERY_S)
    ear.start()
    assert store.over.wait(20)
    ear.stop()
    return len(rung)


def test_a_wish_rings_once_while_it_waits() -> None:
    assert rings(0, 0) == 0
    assert rings(0, 1, 1, 1) == 1
    assert rings(1, 0, 1) == 2
    assert rings(1, 2, 1, 2) == 3, "another one beside it"


def test_a_store_that_does_not_answer_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(controller, "DEAF_S", EVERY_S)
    assert rings(None, None, 1) == 1
