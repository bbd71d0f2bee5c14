"""Starting a process: it knows who it is, or says in one sentence what is missing and exits 1."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.settings.conftest import WELL
from tests.tasks.cluster import run_worker


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "ipmi").write_text("s3cret\n")
    (tmp_path / "secrets" / "ipmi").chmod(0o600)
    (tmp_path / "vms").mkdir()
    (tmp_path / "vms" / "web1.xml").write_text(
        "<domain type='kvm'><name>web1</name><memory unit='MiB'>64</memory><os><type>hvm</type></os></domain>"
    )
    (tmp_path / "cluster.yaml").write_text(WELL.replace("redis://10.0.0.2:6379/0", "redis://127.0.0.1:1/0"))
    return {
        "PATH": "/usr/bin:/bin",
        "FANGNETZ_CONFIG": str(tmp_path / "cluster.yaml"),
        "FANGNETZ_STATE_DIR": str(tmp_path / "state"),
        "FANGNETZ_RUN_DIR": str(tmp_path / "run"),
        "FN_TEST_REDIS": "s3cret",
    }


@pytest.mark.parametrize(
    ("role", "more", "words"),
    [
        ("host", {}, ["FANGNETZ_HOST"]),
        ("control", {}, ["FANGNETZ_CONTROLLER"]),
        ("beat", {}, ["FANGNETZ_CONTROLLER"]),
        ("host", {"FANGNETZ_HOST": "no-such"}, ["no-such", "host1", "FANGNETZ_HOST"]),
        ("control", {"FANGNETZ_CONTROLLER": "no-such"}, ["no-such", "c1", "FANGNETZ_CONTROLLER"]),
        ("work", {"FANGNETZ_CONTROLLER": "host1"}, ["host1", "c1"]),
        ("fence", {"FANGNETZ_CONTROLLER": "no-such"}, ["no-such"]),
        ("beat", {"FANGNETZ_CONTROLLER": "no-such"}, ["no-such", "c1"]),
        ("flower", {}, ["flower"]),
        ("control", {"FANGNETZ_CONTROLLER": "c1", "FANGNETZ_CONFIG": "/nonexistent.yaml"}, ["/nonexistent.yaml"]),
    ],
)
def test_who_does_not_know_who_it_is_says_so_in_a_sentence(
    environment: dict[str, str], role: str, more: dict[str, str], words: list[str]
) -> None:
    done = run_worker([role], {**environment, **more})
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    for word in words:
        assert word in done.stderr
    assert "s3cret" not in done.stderr


@pytest.mark.parametrize("arguments", [[], ["no-such-role"], ["host", "more"], ["--fast"]])
def test_wrong_usage_shows_the_usage(environment: dict[str, str], arguments: list[str]) -> None:
    done = run_worker(arguments, environment)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("usage: fangnetz-worker ROLE")


def test_help_is_no_error(environment: dict[str, str]) -> None:
    done = run_worker(["--help"], environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert "FANGNETZ_HOST" in done.stdout
