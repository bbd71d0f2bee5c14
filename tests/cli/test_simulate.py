"""`fangnetz simulate` as scripts use it: exit codes, JSON on stdout, sentences on stderr."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fangnetz.cli.main import main

SCENARIOS = Path(__file__).parents[1] / "scenarios"
POWER_LOSS = SCENARIOS / "power" / "power_loss.yaml"
FIELDS = {
    "name", "seed", "ok", "broken", "unmet", "counts", "controller_steps", "running", "power", "events", "final",
}  # fmt: skip


def test_a_file_as_json_has_every_field(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", str(POWER_LOSS), "--seed", "3", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert set(data) == FIELDS
    assert (data["ok"], data["seed"]) == (True, 3)
    assert set(data["counts"]) == {"fences", "starts", "migrations", "alarms"}
    (before, after) = data["running"]["web1"]
    assert (before["host"], before["to"], before["end"]) == ("host2", 100.0, "power_lost")
    assert (after["to"], after["end"]) == (None, None)
    assert data["power"]["host2"] == [{"from": 0.0, "to": 100.0, "by": "timeline"}]
    assert data["final"]["hosts"]["host2"] == {"state": "fenced", "power": "off", "maintenance": False}
    assert {"t", "kind", "sentence"} <= set(data["events"][0])


def test_a_person_reads_a_story(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", str(POWER_LOSS), "--timeline"]) == 0
    said = capsys.readouterr().out
    assert "power_off host2" in said
    assert "● ok" in said
    assert any(line.startswith("host2 ") for line in said.splitlines())


def test_a_folder_is_an_array(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for number in (1, 2):
        (tmp_path / f"{number}.yaml").write_text(POWER_LOSS.read_text().replace("until: 200", "until: 5"))
    assert main(["simulate", str(tmp_path), "--json"]) == 1
    data = json.loads(capsys.readouterr().out)
    assert [item["ok"] for item in data] == [False, False]
    assert {unmet["what"] for unmet in data[0]["unmet"]} == {"fenced", "hosts", "placement"}


@pytest.mark.parametrize("text", ["name: x\n", "hosts: {host1: {}}\ntimeline:\n  - {at: 1, halt: host1}\n"])
def test_a_refused_file_is_one_sentence_and_exit_2(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, text: str
) -> None:
    file = tmp_path / "story.yaml"
    file.write_text(text)
    assert main(["simulate", str(file), "--json"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert len(said.err.splitlines()) == 1


def test_a_missing_file_and_two_wishes_at_once_are_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", "/nowhere/story.yaml"]) == 2
    assert main(["simulate"]) == 2
    assert main(["simulate", str(POWER_LOSS), "--random"]) == 2
    capsys.readouterr()


def test_chance_plays_as_many_seeds_as_asked(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["simulate", "--random", "--seeds", "2", "--seed", "5", "--hosts", "3", "--vms", "3", "--faults", "2"]
    code = main([*words, "--json"])
    data = json.loads(capsys.readouterr().out)
    assert data["seeds"] == 2
    assert data["events"] > 1000
    assert code == (1 if data["broke"] else 0)
