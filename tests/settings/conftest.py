"""A small well cluster file on disk, to break one thing at a time."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from fangnetz.settings import SettingsFault, check_settings

EXAMPLE = Path(__file__).parents[2] / "config" / "cluster.example.yaml"
SECRET = "h0rse-battery-staple"

WELL = """\
cluster: demo
redis:
  url: redis://10.0.0.2:6379/0
  password_env: FN_TEST_REDIS
controllers:
  c1: {address: 10.0.0.3}
hosts:
  host1:
    address: 10.0.0.11
    cpus: 4
    memory_mib: 4096
    fencing:
      - - name: ipmi
          driver: ipmi
          address: 10.0.2.11
          username: admin
          password_file: secrets/ipmi
  host2:
    address: 10.0.0.12
    cpus: 4
    memory_mib: 2048
    fencing:
      - - {name: ipmi, driver: ipmi, address: 10.0.2.12, username: admin, password_file: secrets/ipmi}
vms:
  web1:
    xml_file: vms/web1.xml
  db1:
    memory_mib: 256
    disk:
      iscsi: {portal: "10.0.1.5:3260", target: "iqn.2026-11.net.example:db1"}
policy:
  profile: default
"""


@dataclass
class ClusterFile:
    """The file, and what the product says about it."""

    path: Path

    def write(self, text: str) -> None:
        self.path.write_text(text)

    def mend(self, old: str, new: str) -> None:
        text = self.path.read_text()
        assert text.count(old) >= 1, f"the test means to replace {old!r}, which is not there"
        self.path.write_text(text.replace(old, new, 1))

    def line_of(self, words: str) -> int:
        """The last line that holds these words."""
        lines = [n for n, line in enumerate(self.path.read_text().splitlines(), 1) if words in line]
        assert lines, words
        return lines[-1]

    def faults(self) -> tuple[SettingsFault, ...]:
        return check_settings(self.path)

    def only_fault(self) -> SettingsFault:
        faults = self.faults()
        assert len(faults) == 1, [str(fault) for fault in faults]
        return faults[0]


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ClusterFile:
    (tmp_path / "secrets").mkdir()
    secret = tmp_path / "secrets" / "ipmi"
    secret.write_text(SECRET + "\n")
    secret.chmod(0o600)
    (tmp_path / "vms").mkdir()
    shutil.copy(EXAMPLE.parent / "vms" / "example-web1.xml", tmp_path / "vms" / "web1.xml")
    monkeypatch.setenv("FN_TEST_REDIS", SECRET)
    file = ClusterFile(tmp_path / "cluster.yaml")
    file.write(WELL)
    return file


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Path:
    """The example that is shipped, with its secrets in the environment."""
    for name in ("FANGNETZ_REDIS_PASSWORD", "FANGNETZ_FLOWER_PASSWORD", "FANGNETZ_IPMI_PASSWORD"):
        monkeypatch.setenv(name, SECRET)
    return EXAMPLE
