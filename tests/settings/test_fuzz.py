"""Garbage anywhere in a cluster file is answered with sentences: never an exception, never a secret."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from fangnetz.cli.config import app
from fangnetz.core.errors import SettingsError
from fangnetz.settings import Role, check_settings, load_settings

from .conftest import EXAMPLE, SECRET

cli = CliRunner()
TREE = yaml.safe_load(EXAMPLE.read_text())
Where = tuple[str | int, ...]


def _places(value: Any, path: Where = ()) -> Iterator[Where]:
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inside in items:
        yield from _places(inside, (*path, key))


PLACES = list(_places(TREE))[1:]

words = st.sampled_from(
    [
        *(
            "",
            "no",
            "on",
            "null",
            "~",
            "<<",
            "&a",
            "*a",
            "!!int x",
            "0x10",
            "1_000",
            "22:30",
            "2026-11-22",
            "0",
            "1e999",
        ),
        *("/", "../..", "\0", "\ud800", "a" * 5000, "{}", "[", "%", "@", "`", "none", "profile", "password"),
        *("redis://:x@y", "redis://[::1", "redis://h:99999999", "http://", "[::1]", "[::1]:3260", "10.0.0.11"),
        *("vms/example-web1.xml", "/dev/zero", "/proc/self/mem", "/etc/shadow"),
    ]
)
leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=10**17, max_value=10**400)
    | st.floats()
    | st.text()
    | words
    | st.binary(max_size=20)
    | st.dates()
)
junk = st.recursive(
    leaves,
    lambda inside: (
        st.lists(inside, max_size=4) | st.dictionaries(st.text() | words | st.integers(), inside, max_size=4)
    ),
    max_leaves=8,
)


@st.composite
def broken_trees(draw: st.DrawFn) -> Any:
    """The example with one to five places replaced, joined by a stranger, or taken away."""
    tree = copy.deepcopy(TREE)
    for _ in range(draw(st.integers(1, 5))):
        *above, last = draw(st.sampled_from(PLACES))
        parent = tree
        try:
            for part in above:
                parent = parent[part]
            match draw(st.sampled_from(["replace", "insert", "delete", "rename"])):
                case "replace":
                    parent[last] = draw(junk)
                case "insert" if isinstance(parent, list) and isinstance(last, int):
                    parent.insert(last, draw(junk))
                case "insert":
                    parent[draw(st.text() | words)] = draw(junk)
                case "rename" if isinstance(parent, dict):
                    parent[draw(st.text() | words)] = parent.pop(last)
                case _:
                    del parent[last]
        except (KeyError, IndexError, TypeError, AttributeError):
            continue  # an earlier change took the place away
    return tree


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with what the example refers to, and its secrets in the environment."""
    path = tmp_path_factory.mktemp("fuzz")
    (path / "vms").mkdir()
    (path / "vms" / "example-web1.xml").write_bytes((EXAMPLE.parent / "vms" / "example-web1.xml").read_bytes())
    with pytest.MonkeyPatch.context() as patch:
        for name in ("FANGNETZ_REDIS_PASSWORD", "FANGNETZ_FLOWER_PASSWORD", "FANGNETZ_IPMI_PASSWORD"):
            patch.setenv(name, SECRET)
        yield path


def _refused(file: Path, role: Role) -> bool:
    try:
        loaded = load_settings(file, role)
    except SettingsError as error:
        return bool(str(error))
    return SECRET in repr(loaded)


def _judge(file: Path) -> None:
    """Ask every door about the file; they must agree, and speak in sentences."""
    faults = check_settings(file)
    for fault in faults:
        assert fault.line >= 1
        assert fault.rule
        assert len(str(fault).splitlines()) == 1
    assert _refused(file, "controller") == bool(faults)
    assert not _refused(file, "host") or faults, "a host asks for less than a controller"
    for arguments in (["check"], ["check", "--json"], ["show"], ["show", "--json"]):
        done = cli.invoke(app, [*arguments, str(file)])
        assert done.exit_code == (1 if faults else 0), done.output
        assert done.exception is None or isinstance(done.exception, SystemExit)
        assert "Traceback" not in done.output
        assert SECRET not in done.output
        if "--json" in arguments and done.stdout:
            json.loads(done.stdout)
        done.output.encode()


LOOSE = settings(
    max_examples=int(os.environ.get("FUZZ_EXAMPLES", "100")),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)


@LOOSE
@given(tree=broken_trees())
def test_the_example_with_broken_places(folder: Path, tree: Any) -> None:
    file = folder / "cluster.yaml"
    file.write_text(yaml.safe_dump(tree, allow_unicode=False), errors="backslashreplace")
    _judge(file)


@LOOSE
@given(content=st.binary(max_size=400))
def test_bytes(folder: Path, content: bytes) -> None:
    file = folder / "cluster.yaml"
    file.write_bytes(content)
    _judge(file)


@LOOSE
@given(
    start=st.integers(0, len(EXAMPLE.read_bytes())),
    length=st.integers(0, 40),
    junk=st.binary(max_size=20) | st.text().map(lambda text: text.encode(errors="replace")),
)
def test_the_example_with_torn_text(folder: Path, start: int, length: int, junk: bytes) -> None:
    text = EXAMPLE.read_bytes()
    file = folder / "cluster.yaml"
    file.write_bytes(text[:start] + junk + text[start + length :])
    _judge(file)


@LOOSE
@given(text=st.text(alphabet="abc:-{}[],&*!|>'\"%@`#?~<0.1\n\t \\", max_size=120))
def test_text_of_yaml_signs(folder: Path, text: str) -> None:
    file = folder / "cluster.yaml"
    file.write_text(text)
    _judge(file)
