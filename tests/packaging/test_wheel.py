"""The wheel alone is enough: built here, installed into a clean venv, its programs run from any folder.

Never uses the network: the libraries come from the environment the tests run in, the project only from the wheel.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("fangnetz", "tasks", "beat", "workers")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)],
        check=True,
        capture_output=True,
    )
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def venv(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clean venv with the wheel; its bin folder."""
    folder = tmp_path_factory.mktemp("venv")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    python = folder / "bin" / "python"
    # First the wheel, then the libraries: pip must not see the project that is installed among them.
    subprocess.run(
        [sys.executable, "-m", "pip", "--python", str(python), "install", "-q", "--no-deps", "--no-index", str(wheel)],
        check=True,
        capture_output=True,
    )
    # A path in a .pth file is searched, but .pth files in that path are not read: the editable install stays out.
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "bin"


@pytest.fixture
def stray(tmp_path: Path) -> Path:
    """A folder whose files bear our packages' names, as anybody's folder may."""
    for name in ("tasks", "beat", "workers"):
        (tmp_path / f"{name}.py").write_text(f"raise SystemExit('the stray {name}.py was imported')\n")
    return tmp_path


def run(command: list[str], cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "FANGNETZ"))}
    return subprocess.run(
        command, cwd=cwd, env={**clean, **env}, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL
    )


def test_the_wheel_holds_every_file_of_the_packages_and_nothing_else(wheel: Path) -> None:
    inside = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    tracked = {
        str(path.relative_to(ROOT))
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert inside == tracked
    assert "fangnetz/py.typed" in inside


def test_the_packages_come_from_the_wheel(venv: Path, tmp_path: Path) -> None:
    for package in PACKAGES:
        done = run([str(venv / "python"), "-c", f"import {package}; print({package}.__file__)"], tmp_path)
        assert done.stdout.startswith(str(venv.parent)), done.stdout + done.stderr


def test_the_command_line_tells_its_version_from_any_folder(venv: Path, stray: Path) -> None:
    done = run([str(venv / "fangnetz"), "version", "--json"], stray)
    assert done.returncode == 0, done.stderr
    assert "0.1.0" in json.dumps(json.loads(done.stdout))


def test_the_worker_launcher_explains_itself_from_any_folder(venv: Path, stray: Path) -> None:
    done = run([str(venv / "fangnetz-worker"), "--help"], stray)
    assert done.returncode == 0, done.stderr
    for role in ("host", "control", "work", "fence", "beat", "flower"):
        assert role in done.stdout


@pytest.mark.parametrize("role", ["host", "control", "work", "fence", "beat", "flower"])
def test_every_role_without_a_cluster_file_says_so_in_a_sentence(venv: Path, stray: Path, role: str) -> None:
    done = run(
        [str(venv / "fangnetz-worker"), role],
        stray,
        FANGNETZ_CONFIG=str(stray / "missing.yaml"),
        FANGNETZ_HOST="host1",
        FANGNETZ_CONTROLLER="c1",
        FANGNETZ_STATE_DIR=str(stray / "state"),
        FANGNETZ_RUN_DIR=str(stray / "run"),
    )
    assert done.returncode in {1, 2}, done.stdout + done.stderr
    assert "missing.yaml" in done.stderr
    assert "Traceback" not in done.stderr
    assert "stray" not in done.stderr.replace(str(stray), "")


def test_celery_with_a_workdir_does_not_meet_a_stray_tasks_file(venv: Path, stray: Path) -> None:
    # -P as a console script has it: the current folder is not searched unless celery itself adds it.
    python = [str(venv / "python"), "-P", "-m", "celery"]
    example = (ROOT / "config" / "cluster.example.yaml").read_text()
    mine = stray / "cluster.yaml"
    mine.write_text(example.replace("password_file: secrets/redis-operator", "password_env: FANGNETZ_REDIS_PASSWORD"))
    done = run(
        [*python, "--workdir", "/", "-A", "workers.app", "report"],
        stray,
        FANGNETZ_CONFIG=str(mine),
        FANGNETZ_CONTROLLER="c1",
        FANGNETZ_REDIS_PASSWORD="not-used: report opens no connection",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "not-used" not in done.stdout
    assert "software -> celery:5.6.3" in done.stdout
