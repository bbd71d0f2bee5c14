"""Starting a process: it knows who it is, or says in one sentence what is missing and exits 1."""

from __future__ import annotations

from pathlib import Path

import pytest

from fangnetz.adapters.boot_files import BootFilesOnDisk
from fangnetz.core.model import Leaving
from tests.settings.conftest import WELL
from tests.tasks.cluster import run_worker
from workers.leave import pending_shutdown


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


@pytest.mark.parametrize(
    "arguments", [[], ["no-such-role"], ["host", "more"], ["--fast"], ["leave", "halt"], ["stay", "here"]]
)
def test_wrong_usage_shows_the_usage(environment: dict[str, str], arguments: list[str]) -> None:
    done = run_worker(arguments, environment)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("usage: fangnetz-worker ROLE")


@pytest.mark.parametrize(
    ("jobs", "how"),
    [
        ("", Leaving.NO),
        ("12 fangnetz-leave.service stop running\n", Leaving.NO),
        ("7 reboot.target stop waiting\n", Leaving.NO),
        ("1 fangnetz-leave.service stop running\n2 reboot.target start waiting\n", Leaving.REBOOT),
        ("2 kexec.target        start waiting\n", Leaving.REBOOT),
        ("2 poweroff.target start waiting\n3 network.target stop waiting\n", Leaving.SHUTDOWN),
        ("2 halt.target start waiting\n", Leaving.SHUTDOWN),
        ("no jobs running.\n", Leaving.NO),
    ],
)
def test_what_systemd_is_about_to_do_is_read_off_its_jobs(jobs: str, how: Leaving) -> None:
    assert pending_shutdown(jobs) is how


def test_where_no_shutdown_is_pending_nothing_is_announced(environment: dict[str, str], tmp_path: Path) -> None:
    done = run_worker(["leave"], {**environment, "FANGNETZ_HOST": "host1", "PATH": str(tmp_path)})
    assert (done.returncode, "nothing is announced" in done.stderr) == (0, True), done.stderr
    assert not list((tmp_path / "run").rglob("leaving.json"))


def test_what_was_announced_is_taken_back_without_a_store(environment: dict[str, str], tmp_path: Path) -> None:
    files = BootFilesOnDisk(tmp_path / "run")
    files.leave(Leaving.REBOOT)
    done = run_worker(["stay"], {**environment, "FANGNETZ_HOST": "host1"})
    assert done.returncode == 0, done.stderr
    assert files.leaving() is Leaving.NO


def test_a_host_that_is_none_of_the_cluster_leaves_nothing(environment: dict[str, str]) -> None:
    done = run_worker(["leave", "reboot"], {**environment, "FANGNETZ_HOST": "no-such"})
    assert done.returncode == 1
    assert "no-such" in done.stderr
    assert "Traceback" not in done.stderr


def test_help_is_no_error(environment: dict[str, str]) -> None:
    done = run_worker(["--help"], environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert "FANGNETZ_HOST" in done.stdout
