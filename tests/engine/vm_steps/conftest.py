"""The host under test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engine.bench import Bench
from tests.engine.vm_steps.vm_host import Host


@pytest.fixture
def host(bench: Bench, tmp_path: Path) -> Iterator[Host]:
    made = Host(bench, tmp_path / "run")
    yield made
    made.hypervisor.destroy(made.vm)
    made.hypervisor.close()
