"""Emptying a host and filling it again, as the command line shows and asks it; a real controller answers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from fangnetz.cli._follow import BEFORE_ALL, _news
from fangnetz.cli._session import open_session
from fangnetz.core.actions import Happened
from fangnetz.core.model import HostDoc, HostState, VmState, VmWish
from fangnetz.core.policy import Fallback
from fangnetz.core.units import HostId, Incarnation, Seconds, VmId

from .board import Board, Ticking

BEATS = {"host1": {"web1": 7}, "host2": {"web2": 7}, "host3": {"web3": 7}}
H1 = HostId("host1")


def too_big(board: Board) -> None:
    """A second VM on host1 that fits nowhere else."""
    board.vm("big1", host="host1", memory=4000)
    board.beat("host1", {"web1": 7, "big1": 7})
    board.watch()


def test_a_preview_says_who_would_go_where_and_asks_for_nothing(board: Board) -> None:
    board.well()
    said = board.run("host", "evacuate", "host1", "--preview")
    assert (said.code, said.err) == (0, "")
    assert "Emptying host1" in said.out
    (line,) = [line.split() for line in said.out.splitlines() if "web1" in line.split()]
    assert line == ["web1", "host1", "→", "host2", "512", "MiB"]
    assert "1 of 1 VMs would leave, and nobody would notice" in said.out
    assert board.store.view(board.hosts, None).wishes == ()
    assert board.run("host", "show", "host1", "--json").json["evacuate"] is False


def test_a_preview_names_what_would_stay_and_why(board: Board) -> None:
    board.well()
    too_big(board)
    said = board.run("host", "evacuate", "host1", "--preview")
    assert said.code == 0, "a preview has answered, whatever it says"
    assert "1 of 2 VMs would leave, and nobody would notice; 1 would stay and run on" in said.out
    assert "big1  stays" in said.out
    assert "big1 needs 4000" in said.out


def test_a_preview_names_what_is_stopped_for_it(board: Board) -> None:
    board.well()
    doc = board.store.view(board.hosts, None).vms[VmId("web1")]
    board.documents(replace(doc, spec=replace(doc.spec, live=False)))
    said = board.run("host", "evacuate", "host1", "--preview")
    assert "is stopped, moved and started" in said.out
    assert "1 of 1 VMs would leave, and web1 would be down for that" in said.out
    (move,) = board.run("host", "evacuate", "host1", "--preview", "--json").json["preview"]["moves"]
    assert move["live"] is False


def test_a_preview_says_of_each_what_becomes_of_it_if_it_cannot_move_live(board: Board) -> None:
    board.well()
    doc = board.store.view(board.hosts, None).vms[VmId("web1")]
    for own, said in (
        (None, "it stays and runs"),
        (Fallback.RELOCATE, "it is stopped, moved and started"),
        (Fallback.STOP, "it is stopped until host1 is activated"),
    ):
        board.documents(replace(doc, spec=replace(doc.spec, fallback=own)))
        page = " ".join(board.run("host", "evacuate", "host1", "--preview").out.split())
        assert f"if it cannot move live: {said}" in page
        assert said in " ".join(board.run("vm", "show", "web1").out.split())
        (move,) = board.run("host", "evacuate", "host1", "--preview", "--json").json["preview"]["moves"]
        assert move["evacuate_fallback"] == (own or Fallback.STAY).value
        assert board.run("vm", "show", "web1", "--json").json["evacuate_fallback"] == (own or Fallback.STAY).value


def test_a_preview_names_what_is_stopped_until_the_host_is_activated(board: Board) -> None:
    board.well()
    doc = board.store.view(board.hosts, None).vms[VmId("web1")]
    board.documents(replace(doc, spec=replace(doc.spec, live=False, fallback=Fallback.STOP)))
    page = board.run("host", "evacuate", "host1", "--preview").out
    assert "1 would be stopped until host1 is activated" in page
    preview = board.run("host", "evacuate", "host1", "--preview", "--json").json["preview"]
    assert (preview["moves"], preview["stays"], [one["vm"] for one in preview["stops"]]) == ([], [], ["web1"])


def test_a_preview_of_an_empty_host_says_so(board: Board) -> None:
    board.well()
    board.vm("web3", VmState.STOPPED, wish=VmWish.STOPPED)
    board.beat("host3")
    board.watch()
    assert "nothing runs there" in board.run("host", "evacuate", "host3", "--preview").out


def test_a_preview_as_json_holds_moves_and_stays(board: Board) -> None:
    board.well()
    too_big(board)
    said = board.run("host", "evacuate", "host1", "--preview", "--json")
    assert said.code == 0, said.err
    assert said.json.keys() == {"schema", "preview"}
    preview = said.json["preview"]
    assert preview.keys() == {"host", "moves", "stays", "stops"}
    assert preview["host"] == "host1"
    (move,), (stay,) = preview["moves"], preview["stays"]
    assert {name: move[name] for name in ("vm", "from", "to")} == {"vm": "web1", "from": "host1", "to": "host2"}
    assert move["because"]
    assert stay["vm"] == "big1"
    assert "big1 needs 4000" in stay["because"]


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_there_is_no_preview_while_nobody_watches(board: Board, options: tuple[str, ...]) -> None:
    board.live()
    board.host("host1")
    said = board.run("host", "evacuate", "host1", "--preview", *options)
    assert (said.code, said.out) == (1, "")
    assert said.err == "there is no preview: no controller watches\n"


def test_a_preview_of_no_host_is_a_sentence(board: Board) -> None:
    board.well()
    said = board.run("host", "evacuate", "host9", "--preview")
    assert (said.code, said.out) == (1, "")
    assert said.err.startswith("host9 is no host of this cluster")


def emptied(board: Board) -> None:
    """host1 is in maintenance, and its web1 runs on host2."""
    doc = HostDoc(
        id=H1, maintenance=True, evacuate=True, away=(VmId("web1"),), incarnation=Incarnation("boot-of-host1")
    )
    board.documents(doc)
    board.host("host1", HostState.MAINTENANCE)
    board.vm("web1", host="host2")


def migrations(board: Board) -> list[Any]:
    return [item for item in board.run("operation", "list", "--json").json["items"] if item["kind"] == "migrate"]


AWAY = {"host1": {}, "host2": {"web1": 7, "web2": 7}, "host3": {"web3": 7}}


def test_activate_with_failback_brings_home_what_left(board: Board) -> None:
    board.well()
    emptied(board)
    with Ticking(board, AWAY):
        said = board.run("host", "activate", "host1", "--failback", "--wait", "--timeout", "20")
        assert said.code == 0, said.err
        assert "host1 is online, and 1 VMs come home" in said.err
        assert said.out == "host1 is online.\n"
        for _ in range(100):
            moves = migrations(board)
            if moves:
                break
    (move,) = moves
    assert move["subject"] == "web1"
    assert "host1 is back: it goes home" in move["reason"]
    doc = board.store.view(board.hosts, None).host_docs[H1]
    assert (doc.failback, doc.away, doc.maintenance, doc.evacuate) == (True, ("web1",), False, False)


def test_activate_without_failback_leaves_them_where_they_are(board: Board) -> None:
    board.well()
    emptied(board)
    with Ticking(board, AWAY):
        said = board.run("host", "activate", "host1", "--json")
        assert said.code == 0, said.err
        assert said.json["sentence"] == "host1 is online"
    doc = board.store.view(board.hosts, None).host_docs[H1]
    assert (doc.failback, doc.away) == (False, ())
    assert migrations(board) == []


def test_a_failback_with_nothing_away_is_an_activation(board: Board) -> None:
    board.well()
    emptied(board)
    known = board.store.view(board.hosts, None).host_docs[H1]
    board.documents(replace(known, away=()))
    with Ticking(board, AWAY):
        said = board.run("host", "activate", "host1", "--failback", "--json")
    assert said.code == 0, said.err
    assert said.json["sentence"] == "host1 is online"


# --- followed ----------------------------------------------------------------------------------------------------


def test_whoever_follows_looks_again_when_something_happens_and_else_after_a_while(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    board.well()
    monkeypatch.setenv("FANGNETZ_CONFIG", str(board.file))
    session = open_session()
    known = _news(session, "", 0.0) or BEFORE_ALL
    assert _news(session, known, 0.01) == known, "nothing happened"
    session.store.log([Happened(kind="vm_started", subject="web1", sentence="web1 runs on host2", facts={})])
    (event,) = session.store.events("", 1, Seconds(0))
    assert _news(session, known, 60.0) == event.id != known
    assert _news(session, "", 0.0) == event.id, "where a follower begins"


def test_whoever_follows_outlives_a_log_that_cannot_be_read(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    board.well()
    monkeypatch.setenv("FANGNETZ_CONFIG", str(board.file))
    board.raw.set("fn:{demo}:events", "no stream")
    assert _news(open_session(), "1-1", 0.01) == "1-1"
