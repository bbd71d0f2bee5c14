"""One host and one controller as they really run: `fangnetz-worker` processes on a real store and a test libvirt.

The store has the users' file that `fangnetz config redis-acl` would write: whatever runs here proves its rights.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from celery import Celery

from fangnetz import wiring
from fangnetz.adapters.redis import RedisStore
from fangnetz.adapters.redis.acl import SERVERS, USERS, Credential, acl_text, sha256_of
from fangnetz.core.model import ClusterView, VmDoc, VmSpec, VmState, VmWish, Wish, WishKind
from fangnetz.core.operations import Operation, OperationKind
from fangnetz.core.units import MiB, VmId
from fangnetz.settings import Settings, load_settings
from tests.redis_server import RedisServer, free_port, wait_for
from workers.app import create_app

REDIS_SECRET = "r3dis-Sup3r-s3cret"
BMC_SECRET = "bmc-Sup3r-s3cret"
HAND = "hand"

FILE = """\
cluster: demo
redis:
{redis}
  users:
    controller: {{username: fn-controller, password_file: {folder}/redis-controller}}
    host: {{username: fn-host, password_file: {folder}/redis-host}}
    flower: {{username: fn-flower, password_file: {folder}/redis-flower}}
    operator: {{username: fn-operator, password_file: {folder}/redis-operator}}
flower: {{port: {flower}, password_file: {folder}/flower}}
controllers:
  c1: {{address: 127.0.0.1}}
hosts:
  h1:
    address: 127.0.0.2
    libvirt_uri: test:///default
    libvirt_port: {closed}
    cpus: 8
    memory_mib: 4096
    bmc_guid_command: [cat, {folder}/guid]
    fencing:
      - - {{name: ipmi, driver: ipmi, address: 127.0.0.3, port: {closed}, username: admin, password_file: {folder}/bmc}}
policy: {{profile: fast, step_lease_s: 1.0, control_lease_s: 2.0, stop_bound_s: 2}}
"""
XML = "<domain type='test'><name>{vm}</name><memory unit='MiB'>64</memory><os><type>hvm</type></os></domain>"


def closed_port() -> int:
    """A port nobody listens on: the BMC is dead."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Monitor:
    """Every command Redis is sent, by clients and scripts, as long as it runs (Redis leaves AUTH out)."""

    def __init__(self, port: int, user: str, password: str) -> None:
        self.lines: list[str] = []
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.sendall(f"AUTH {user} {password}\r\nMONITOR\r\n".encode())
        self._thread = threading.Thread(target=self._run, name="monitor", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        with self._socket.makefile("rb") as stream, contextlib.suppress(OSError):
            for line in stream:
                self.lines.append(line.decode(errors="replace"))


def secret_of(user: str) -> str:
    """A password of each user's own; every one begins with REDIS_SECRET."""
    return f"{REDIS_SECRET}-{user}"


def users_file() -> str:
    """The product's users, and one that may do all: the test's own hand."""
    known = {user: Credential(username=f"fn-{user}", sha256=sha256_of(secret_of(user))) for user in (*USERS, *SERVERS)}
    return acl_text("demo", 0, known) + f"user {HAND} on #{sha256_of(secret_of(HAND))} ~* &* +@all\n"


class Processes:
    """The processes of one cluster; each logs into a file of its role's name."""

    more_policy = ""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for secret, text in {
            "bmc": BMC_SECRET,
            "flower": REDIS_SECRET,
            **{f"redis-{user}": secret_of(user) for user in (*USERS, *SERVERS)},
        }.items():
            (folder / secret).write_text(text + "\n")
            (folder / secret).chmod(0o600)
        (folder / "users.acl").write_text(users_file())
        (folder / "guid").write_text("System GUID  : 11223344-5566-7788-99aa-bbccddeeff00\n")
        self.config = folder / "cluster.yaml"
        self.server = self.start_store()
        self.raw = self.server.client()
        self.config.write_text(
            FILE.format(redis=self.place(), folder=folder, closed=closed_port(), flower=free_port()) + self.more_policy
        )
        try:
            self.settings: Settings = load_settings(self.config)
        except BaseException:
            self.server.kill()
            raise
        self.store: RedisStore = wiring.open_store(self.settings, name="test", user="controller")
        # Who sends messages a person may not, as a controller gone astray would; and a person.
        self.insider: Celery = create_app(self.settings, "work", "test")
        self.app: Celery = create_app(self.settings, "client", "test")
        self.monitor = Monitor(self.server.port, HAND, secret_of(HAND))
        self.running: dict[str, subprocess.Popen[bytes]] = {}

    def start_store(self) -> RedisServer:
        """Start what this cluster has for a store, append-only, with its users' file."""
        data = self.folder / "redis"
        data.mkdir()
        options = ["--aclfile", f"{self.folder}/users.acl", "--appendonly", "yes", "--dir", str(data)]
        return RedisServer(secret_of(HAND), user=HAND, options=options)

    def place(self) -> str:
        """Return where it is, as the cluster file says it."""
        return f'  url: "redis://127.0.0.1:{self.server.port}/0"'

    def environment(self, **more: str) -> dict[str, str]:
        keep = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        return {
            **keep,
            "FANGNETZ_CONFIG": str(self.config),
            "FANGNETZ_HOST": "h1",
            "FANGNETZ_CONTROLLER": "c1",
            **more,
        }

    def start(self, *roles: str, fault: str = "", **more: str) -> None:
        """Start these roles; `more` goes into their environment."""
        for role in roles:
            where = {
                "FANGNETZ_STATE_DIR": str(self.folder / f"state-{'h1' if role == 'host' else 'c1'}"),
                "FANGNETZ_RUN_DIR": str(self.folder / f"run-{role}"),
                **({"FANGNETZ_FAULT": fault} if fault else {}),
            }
            (self.folder / f"run-{role}").mkdir(exist_ok=True)
            with self.log(role).open("ab") as log:
                self.running[role] = subprocess.Popen(
                    [worker_command(), role],
                    env=self.environment(**where, **more),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd=self.folder,
                )

    def log(self, role: str) -> Path:
        return self.folder / f"{role}.log"

    def said(self, role: str) -> str:
        return self.log(role).read_text(errors="replace") if self.log(role).exists() else ""

    def kill(self, role: str) -> None:
        process = self.running.pop(role)
        process.kill()
        process.wait()

    def died(self, role: str) -> bool:
        return self.running[role].poll() is not None

    def end(self) -> None:
        for process in self.running.values():
            process.terminate()
        for process in self.running.values():
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.raw.close()
        self.server.kill()

    # -- what the cluster says --

    def view(self) -> ClusterView:
        return self.store.view({host: it.spec for host, it in self.settings.hosts.items()}, None)

    def state(self, vm: str) -> VmState | None:
        record = self.view().vm_records.get(VmId(vm))
        return record.state if record else None

    def operations(self, kind: OperationKind, subject: str) -> list[Operation]:
        return [op for op in self.store.operations(100) if op.kind is kind and op.subject == subject]

    def becomes(self, vm: str, state: VmState, bound: float = 45.0) -> bool:
        return wait_for(lambda: self.state(vm) is state, bound, every=0.1)

    def define(self, vm: str, wish: VmWish) -> None:
        """Wish a VM of libvirt's test driver, which no cluster file may name."""
        text = XML.format(vm=vm)
        doc = VmDoc(spec=VmSpec(id=VmId(vm), memory_mib=MiB(64), cpus=1), xml=text, wish=wish, source="cli")
        self.store.add_wish(
            Wish(id=f"add-{vm}", kind=WishKind.VM_ADD, subject=vm, by="a test", at=self.store.now(), doc=doc)
        )

    def wish(self, task: str, *arguments: str) -> None:
        self.app.send_task(f"fangnetz.{task}", args=arguments, queue="work")

    def nothing_under_way(self, bound: float = 30.0) -> bool:
        return wait_for(lambda: not self.view().operations, bound, every=0.1)


def worker_command() -> str:
    beside = Path(sys.executable).with_name("fangnetz-worker")
    found = str(beside) if beside.exists() else shutil.which("fangnetz-worker")
    assert found, "fangnetz-worker is not installed"
    return found


def run_worker(arguments: Sequence[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run it until it ends by itself."""
    return subprocess.run([worker_command(), *arguments], env=environment, capture_output=True, text=True, timeout=60)
