"""`fangnetz slots format`: prepares the device the cluster file names, and touches nothing that holds anything."""

from __future__ import annotations

from pathlib import Path

import pytest

from fangnetz.adapters.disk_slots.places import BLOCKS
from fangnetz.cli.main import main

FILE = Path(__file__).parents[2] / "config" / "cluster.example.yaml"


@pytest.fixture
def lun(tmp_path: Path) -> Path:
    path = tmp_path / "lun"
    with path.open("wb") as device:
        device.truncate(BLOCKS * 4096)
    return path


def cluster_file(folder: Path, slots: str) -> Path:
    text = FILE.read_text()
    found = "  folder: /srv/vms/fangnetz"
    assert text.count(found) == 1
    path = folder / "cluster.yaml"
    path.write_text(text.replace(found, f"  {slots}"))
    return path


def test_an_empty_device_is_prepared_and_once_more_is_no_harm(
    tmp_path: Path, lun: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = cluster_file(tmp_path, f"device: {lun}")
    for _ in range(2):
        assert main(["slots", "format", str(file)]) == 0
        assert capsys.readouterr().out == f"{lun} is ready for the hosts' slots.\n"
    assert lun.read_bytes().startswith(b"fangnetz-slots-1 demo\n")


def test_a_device_that_holds_something_is_refused_and_left_alone(
    tmp_path: Path, lun: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lun.write_bytes(b"a file system".ljust(BLOCKS * 4096, b"\0"))
    before = lun.read_bytes()
    assert main(["slots", "format", str(cluster_file(tmp_path, f"device: {lun}"))]) == 1
    assert "is not empty" in capsys.readouterr().err
    assert lun.read_bytes() == before


def test_a_folder_needs_no_preparing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["slots", "format", str(cluster_file(tmp_path, f"folder: {tmp_path}"))]) == 1
    assert "slots.device: names no device" in capsys.readouterr().err
