"""`fangnetz config check` and `show`: exit codes, JSON, and no secret on any stream."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fangnetz.cli.config import app

from .conftest import SECRET, ClusterFile

cli = CliRunner()


def test_check_says_well_and_exits_0(example: Path) -> None:
    done = cli.invoke(app, ["check", str(example)])
    assert done.exit_code == 0, done.output
    assert "demo" in done.output


def test_check_takes_the_file_from_the_environment(example: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FANGNETZ_CONFIG", str(example))
    assert cli.invoke(app, ["check"]).exit_code == 0


def test_check_without_its_secrets_in_the_environment_names_each_place(
    example: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FANGNETZ_IPMI_PASSWORD")
    done = cli.invoke(app, ["check", str(example), "--json"])
    assert done.exit_code == 1
    keys = [item["key"] for item in json.loads(done.stdout)["items"]]
    assert keys == [f"hosts.host{n}.fencing[0][0].password_env" for n in (1, 2, 3)]
    assert cli.invoke(app, ["check", str(example), "--on-host"]).exit_code == 0


def test_check_prints_a_line_per_fault_and_exits_1(cluster: ClusterFile) -> None:
    cluster.mend("cpus: 4", "cpus: 0")
    cluster.mend("cluster: demo", "cluster: DEMO")
    done = cli.invoke(app, ["check", str(cluster.path)])
    assert done.exit_code == 1
    assert done.output.splitlines()[:2] == [str(fault) for fault in cluster.faults()]


def test_check_as_json_has_the_five_fields(cluster: ClusterFile) -> None:
    cluster.mend("cpus: 4", "cpus: 0")
    done = cli.invoke(app, ["check", str(cluster.path), "--json"])
    assert done.exit_code == 1
    report = json.loads(done.stdout)
    (item,) = report["items"]
    rule = item.pop("rule")
    line = cluster.line_of("cpus: 0")
    assert rule
    assert item == {"level": "fault", "file": str(cluster.path), "line": line, "key": "hosts.host1.cpus", "value": "0"}
    assert (report["schema"], report["next"]) == (1, None)


@pytest.mark.parametrize("json_too", [[], ["--json"]])
def test_show_fills_in_defaults_and_masks_secrets(cluster: ClusterFile, json_too: list[str]) -> None:
    done = cli.invoke(app, ["show", str(cluster.path), *json_too])
    assert done.exit_code == 0, done.output
    assert SECRET not in done.output
    assert "***" in done.output
    assert "FN_TEST_REDIS" in done.output
    assert "16509" in done.output
    assert "control_lease_s" in done.output


def test_show_of_a_broken_file_is_the_list_of_faults(cluster: ClusterFile) -> None:
    cluster.mend("cpus: 4", "cpus: 0")
    done = cli.invoke(app, ["show", str(cluster.path), "--json"])
    assert (done.exit_code, done.stdout) == (1, "")
    assert "hosts.host1.cpus" in done.stderr


def test_no_file_is_a_sentence(tmp_path: Path) -> None:
    done = cli.invoke(app, ["check", str(tmp_path / "none.yaml")])
    assert done.exit_code == 1
    assert "No such file" in done.output
