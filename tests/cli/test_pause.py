"""`fangnetz pause` and `resume`: asked for at the command line, answered by a real controller, shown in every view."""

from __future__ import annotations

import pytest

from fangnetz.cli._span import span_of
from fangnetz.core.errors import WishRefused
from fangnetz.core.units import Seconds

from .board import Board, Ticking

BEATS = {"host1": {"web1": 7}, "host2": {"web2": 7}, "host3": {"web3": 7}}


def test_a_pause_stands_in_every_view_until_it_is_ended(board: Board) -> None:
    board.well()
    with Ticking(board, BEATS):
        assert board.run("status", "--json").json["paused"] is None
        before = board.now
        said = board.run("pause", "--for", "2h", "--reason", "new   switch")
        assert said.code == 0, said.err
        assert "the cluster is paused by " in said.out
        assert "(new switch)" in said.out
        shown = board.run("status", "--json").json
        assert shown["paused"]["reason"] == "new switch"
        assert shown["paused"]["by"]
        assert before <= shown["paused"]["since"] <= shown["at"]
        assert before + 7200 <= shown["paused"]["until"] <= shown["at"] + 7200
        assert [alarm["kind"] for alarm in shown["alarms"] if alarm["subject"] == "cluster"] == ["paused"]
        assert "paused" in [brake["kind"] for brake in board.run("host", "show", "host1", "--json").json["brakes"]]
        for words in (("status",), ("host", "list")):
            assert "nothing is ordered" in " ".join(board.run(*words).out.split())
        ended = board.run("resume")
        assert (ended.code, "ended the pause" in ended.out) == (0, True)
        assert board.run("status", "--json").json["paused"] is None
    assert "nothing is ordered" not in board.run("host", "list").out


def test_a_pause_without_a_span_lasts_until_it_is_ended(board: Board) -> None:
    board.well()
    with Ticking(board, BEATS):
        answer = board.run("pause", "--json")
        assert answer.json["granted"] is True
        assert board.run("status", "--json").json["paused"]["until"] is None
        assert "until somebody ends it" in answer.json["sentence"]


def test_there_must_be_a_pause_to_end(board: Board) -> None:
    board.well()
    with Ticking(board, BEATS):
        said = board.run("resume")
    assert (said.code, said.out, said.err) == (1, "", "the cluster is not paused\n")


def test_a_wish_that_orders_something_is_refused_in_a_pause_with_what_to_do(board: Board) -> None:
    board.well()
    with Ticking(board, BEATS):
        assert board.run("pause").code == 0
        moved = board.run("vm", "migrate", "web1")
        assert (moved.code, "`fangnetz resume` ends it" in moved.err) == (1, True)
        stopped = board.run("vm", "stop", "web1")
        assert (stopped.code, "only afterwards" in stopped.out) == (0, True)
    assert board.store.view(board.hosts, None).operations == {}


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("30m", 1800), ("2h", 7200), ("1d", 86400), ("1h30m", 5400), ("366d", 31622400)]
)
def test_a_span_is_written_as_people_do(text: str, seconds: float) -> None:
    assert span_of(text, "--for") == Seconds(seconds)


@pytest.mark.parametrize("text", ["", "2", "h", "2x", "0s", "30m1h", "1h1h", "-1h", "1.5h", "2 h", "367d"])
def test_a_span_that_is_none_is_refused_with_its_rule(board: Board, text: str) -> None:
    with pytest.raises(WishRefused, match="--for"):
        span_of(text, "--for")
    said = board.run("pause", f"--for={text}")
    assert (said.code, said.out) == (1, "")
    assert said.err.startswith(f"--for {text!r}: must ")


def test_a_reason_is_a_sentence_and_no_book(board: Board) -> None:
    said = board.run("pause", "--reason", "x" * 201)
    assert (said.code, said.err) == (1, "--reason has 201 characters: at most 200\n")
