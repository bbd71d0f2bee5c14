"""Real parts for adapter tests: BMCs by OpenIPMI's simulator, a libvirtd of its own, a network namespace.

Each is private to its test and gone afterwards; nothing of the machine's own services is touched.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from fangnetz.adapters.ipmi import IpmiDevice, IpmiHelper
from fangnetz.core.units import DeviceName
from tests.contract.subjects import Cluster, RedisSubject
from tests.redis_server import RedisServer, free_port

SECRET = "s3cret-of-bmc-01"  # 16 bytes: the most that every IPMI version takes


WITH_US = ("setpriv", "--pdeathsig", "KILL", "--")
"""Ends what we start when the test process ends, however it ends."""


def wait_for(condition: Callable[[], bool], bound: float = 10.0, every: float = 0.02) -> bool:
    """Ask until it holds or the bound passed; say which."""
    deadline = time.monotonic() + bound
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(every)
    return True


# --- Redis ------------------------------------------------------------------------------------------------------


@pytest.fixture
def subject(redis_server: RedisServer) -> Iterator[RedisSubject]:
    made = RedisSubject(redis_server)
    yield made
    made.close()


@pytest.fixture
def cluster(subject: RedisSubject) -> Cluster:
    return Cluster(subject)


# --- BMCs --------------------------------------------------------------------------------------------------------


@dataclass
class Bmc:
    """One ipmi_sim. `power` is what its plug really does, `reported` what a lying one says."""

    folder: Path
    port: int
    guid: str
    process: subprocess.Popen[bytes]

    @property
    def power(self) -> str:
        return (self.folder / "power").read_text().strip()

    @property
    def orders(self) -> list[str]:
        log = self.folder / "log"
        return [line for line in log.read_text().splitlines() if line.startswith("set")] if log.exists() else []

    def lie(self) -> None:
        (self.folder / "lying").touch()

    def slow(self, seconds: float) -> None:
        (self.folder / "delay").write_text(str(seconds))

    def go_dark(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def come_back(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def end(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGCONT)
        self.process.kill()
        self.process.wait()


LAN = """name "{name}"
set_working_mc 0x20
startlan 1
  addr 127.0.0.1 {port}
  priv_limit admin
  allowed_auths_callback none md2 md5 straight
  allowed_auths_user none md2 md5 straight
  allowed_auths_operator none md2 md5 straight
  allowed_auths_admin none md2 md5 straight
  guid {guid}
endlan
chassis_control "{control}"
user 1 true "" "" user 10 none md2 md5 straight
user 2 true "admin" "{secret}" admin 10 none md2 md5 straight
"""
EMULATION = """mc_setbmc 0x20
mc_add 0x20 0 no-device-sdrs 0x23 9 8 0x9f 0x1291 0xf02 persist_sdr
mc_enable 0x20
"""
CONTROL = """#!/bin/sh
cd {folder} || exit 1
echo "$@" >> log
[ -e delay ] && sleep "$(cat delay)"
op=$1; shift
case $op in
get) for what; do case $what in power) cat reported | sed s/^/power:/;; esac; done;;
set) while [ $# -gt 0 ]; do
       [ "$1" = power ] && echo "$2" > reported
       [ "$1" = power ] && [ ! -e lying ] && echo "$2" > power
       shift 2
     done;;
esac
"""


def free_udp_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def make_bmc(tmp_path: Path) -> Iterator[Callable[[str], Bmc]]:
    if not shutil.which("ipmi_sim"):
        pytest.skip("ipmi_sim is missing (Debian package openipmi)")
    made: list[Bmc] = []

    def make(name: str = "bmc") -> Bmc:
        folder = tmp_path / name
        (folder / "state").mkdir(parents=True)
        port, guid = free_udp_port(), uuid.uuid4().hex
        control = folder / "control"
        (folder / "lan.conf").write_text(LAN.format(name=name, port=port, guid=guid, control=control, secret=SECRET))
        (folder / "bmc.emu").write_text(EMULATION)
        control.write_text(CONTROL.format(folder=folder))
        control.chmod(0o755)
        for file in ("power", "reported"):
            (folder / file).write_text("1\n")
        with (folder / "sim.log").open("wb") as log:
            process = subprocess.Popen(
                [
                    *WITH_US,
                    "ipmi_sim",
                    "-n",
                    "-c",
                    folder / "lan.conf",
                    "-f",
                    folder / "bmc.emu",
                    "-s",
                    folder / "state",
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=folder,
            )
        made.append(Bmc(folder, port, guid, process))
        assert wait_for(lambda: f":{port:04X} " in Path("/proc/net/udp").read_text())
        return made[-1]

    yield make
    for bmc in made:
        bmc.end()


@pytest.fixture(scope="session")
def helper() -> Iterator[IpmiHelper]:
    helper = IpmiHelper()
    yield helper
    helper.close()


def device_at(port: int, helper: IpmiHelper, password: str = SECRET, name: str = "ipmi") -> IpmiDevice:
    return IpmiDevice(
        name=DeviceName(name),
        address="127.0.0.1",
        port=port,
        username="admin",
        password_reader=lambda: password,
        helper=helper,
    )


# --- libvirt -----------------------------------------------------------------------------------------------------

LIBVIRTD = """set -e
mount --make-rprivate /
mount -t tmpfs tmpfs /run
for kind in etc:etc lib:var/lib cache:var/cache log:var/log; do
    mkdir -p "{home}/${{kind%%:*}}" && mount --bind "{home}/${{kind%%:*}}" "/${{kind#*:}}/libvirt"
done
if [ -e /dev/kvm ]; then : > "{home}/no-kvm"; chmod 444 "{home}/no-kvm"; mount --bind "{home}/no-kvm" /dev/kvm; fi
ip link set lo up
cat > /etc/libvirt/libvirtd.conf <<END
auth_unix_rw="none"
auth_unix_ro="none"
unix_sock_dir="{home}/sock"
host_uuid="{uuid}"
listen_tls=0
listen_tcp=1
listen_addr="127.0.0.1"
tcp_port="{port}"
auth_tcp="none"
END
cat > /etc/libvirt/qemu.conf <<END
user="root"
group="root"
security_driver="none"
cgroup_controllers=[]
namespaces=[]
remember_owner=0
lock_manager="lockd"
END
echo 'file_lockspace_dir="{home}/shared/fn"' > /etc/libvirt/qemu-lockd.conf
mkdir -p "{home}/sock" "{home}/shared/fn"
virtlogd -d
virtlockd -d
libvirtd --listen & echo $! > "{home}/libvirtd.pid.draft"; mv "{home}/libvirtd.pid.draft" "{home}/libvirtd.pid"
wait
sleep 3600
"""
NEEDED = ("libvirtd", "virtlockd", "virtlogd", "qemu-system-x86_64", "unshare", "tini")


@dataclass
class Libvirtd:
    """A libvirtd, virtlockd and QEMU in namespaces of their own; `freeze` stops libvirtd alone."""

    home: Path
    root: subprocess.Popen[bytes]
    port: int
    """Where it listens for other hosts, in its own network namespace."""

    @property
    def uri(self) -> str:
        return f"qemu+unix:///system?socket={self.home}/sock/libvirt-sock"

    @property
    def shared(self) -> Path:
        return self.home / "shared"

    def signal(self, number: int) -> None:
        inside = (self.home / "libvirtd.pid").read_text().strip()
        subprocess.run(["nsenter", "-t", str(self.init), "-p", "-m", "kill", f"-{number}", inside], check=True)

    def restart(self) -> None:
        inside = ["nsenter", "-t", str(self.init), "-p", "-m", "-n", "libvirtd", "-d", "-p", self.home / "new.pid"]
        # A killed daemon holds its socket and its lock until the kernel is done with it: a moment, or none.
        assert wait_for(lambda: subprocess.run(inside).returncode == 0, 15), "libvirtd does not start again"
        (self.home / "libvirtd.pid").write_text((self.home / "new.pid").read_text())

    def freeze(self) -> None:
        self.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.signal(signal.SIGCONT)

    @property
    def init(self) -> int:
        children = Path(f"/proc/{self.root.pid}/task/{self.root.pid}/children").read_text().split()
        return int(children[0])


@contextlib.contextmanager
def running_libvirtd(network: tuple[str, ...]) -> Iterator[Libvirtd]:
    home = Path(tempfile.mkdtemp(prefix="fnlv-"))  # short: a unix socket's path has 107 bytes
    script = home / "init.sh"
    port = free_port()
    script.write_text(LIBVIRTD.format(home=home, uuid=uuid.uuid4(), port=port))
    with (home / "output").open("wb") as output:
        root = subprocess.Popen(
            [
                *WITH_US,
                *network,
                "--mount",
                "--pid",
                "--fork",
                "--kill-child",
                "--mount-proc",
                "tini",
                "-g",
                "sh",
                script,
            ],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        assert wait_for((home / "sock" / "libvirt-sock").exists, 30), (home / "output").read_text()
        yield Libvirtd(home, root, port)
    finally:
        root.kill()
        root.wait()
        shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(scope="session")
def libvirtd() -> Iterator[Libvirtd]:
    if os.geteuid() != 0:
        pytest.skip("a libvirtd of its own needs root")
    missing = [name for name in NEEDED if not shutil.which(name)]
    if missing:
        pytest.skip(f"missing: {', '.join(missing)}")
    with running_libvirtd(("unshare", "--net")) as libvirtd:
        yield libvirtd


@pytest.fixture
def neighbour(libvirtd: Libvirtd) -> Iterator[Libvirtd]:
    """Another libvirtd in the same network namespace: a migration's target."""
    with running_libvirtd(("nsenter", "-t", str(libvirtd.init), "-n", "unshare")) as neighbour:
        yield neighbour


@pytest.fixture
def silent_peer() -> Iterator[str]:
    """An address on a veth of ours whose other end drops everything but ARP."""
    if os.geteuid() != 0:
        pytest.skip("a network namespace needs root")
    name = f"fnp{os.getpid() % 100000}"
    third = os.getpid() % 250
    ours, theirs = f"10.213.{third}.1", f"10.213.{third}.2"

    def ip(*words: str) -> None:
        subprocess.run(["ip", *words], check=True, stdin=subprocess.DEVNULL)

    ip("netns", "add", name)
    try:
        ip("link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", name)
        ip("addr", "add", f"{ours}/30", "dev", name)
        ip("link", "set", name, "up")
        ip("-n", name, "link", "set", "eth0", "up")
        ip("-n", name, "addr", "add", f"{theirs}/30", "dev", "eth0")
        subprocess.run(["ip", "netns", "exec", name, "iptables", "-A", "INPUT", "-j", "DROP"], check=True)
        yield theirs
    finally:
        subprocess.run(["ip", "link", "del", name], stderr=subprocess.DEVNULL)
        ip("netns", "del", name)
