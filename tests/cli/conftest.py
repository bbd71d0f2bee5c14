"""A redis-server of its own on a free loopback port, and a board to write a cluster on."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from .board import Board


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def redis_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    port = free_port()
    folder = tmp_path_factory.mktemp("redis")
    words = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(["redis-server", *words], stdout=log, stderr=log)
        client = redis.Redis(port=port)
        try:
            for _ in range(200):
                try:
                    client.ping()
                    break
                except redis.ConnectionError:
                    assert server.poll() is None, (folder / "log").read_text()
                    time.sleep(0.05)
            yield port
        finally:
            client.close()
            server.terminate()
            server.wait(timeout=10)


@pytest.fixture
def board(
    redis_port: int, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Board]:
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.setenv("FANGNETZ_CONFIG", "")  # whatever a command sets is put back
    made = Board(tmp_path, redis_port, capsys)
    yield made
    made.raw.close()
