"""The lab as tests, demo and bench use it: bring it up, do to it what happens to real machines, take it down.

Everything it does is done to the lab's own namespaces and processes. It never decides anything for the cluster inside.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from fangnetz.lab import bmc, cuts, freeze, host, verdict
from fangnetz.lab.bmc import MODES, BmcMode, build_bmc
from fangnetz.lab.broker import start_stores
from fangnetz.lab.cluster_file import make_secrets, write_cluster_file
from fangnetz.lab.cuts import Direction
from fangnetz.lab.definitions import write_definitions, xml_path
from fangnetz.lab.errors import LabError, LabUsageError
from fangnetz.lab.guest import guest_image
from fangnetz.lab.host import build_host, keep_capabilities
from fangnetz.lab.machine import check_machine, check_root
from fangnetz.lab.names import checked_name, root_folder, tag_of
from fangnetz.lab.network import build_network, free_subnet, remove_network
from fangnetz.lab.patience import wait_until
from fangnetz.lab.plan import HOSTS_MAX, LIBVIRT_PORT, VMS_MAX, Isolated, Link, Plan, Policy
from fangnetz.lab.processes import end_all, namespaces_of, processes_of
from fangnetz.lab.product import check_product, start_controllers
from fangnetz.lab.run import run, script
from fangnetz.lab.status import lab_status
from fangnetz.lab.storage import start_storage
from fangnetz.lab.store_faults import VERBS, StoreVerb, store_fault

Say = Callable[[str], None]
LIBVIRT_WITHIN_S = 90.0
VMS_WITHIN_S = 120.0
WITNESS_WITHIN_S = 30.0
_FOLDERS = ("log", "hosts", "bmc", "storage", "redis", "vms", "cuts", "frozen", "filtered", "controllers")


class Lab:
    """A lab that is up. Use `Lab.up(...)`, or `Lab.open(name)` for one that is up already; a context manager."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan

    @classmethod
    def up(
        cls,
        *,
        name: str | None = None,
        hosts: int = 3,
        vms: int = 4,
        policy: Policy = "default",
        storage_lock: bool = False,
        bare: bool = False,
        sentinel: bool = False,
        slots: bool = True,
        isolated: Isolated = "fence",
        say: Say = lambda _: None,
    ) -> Self:
        """Bring a lab up, removing first what a crash of the same lab left; return when its VMs are seen writing.

        With `sentinel` there are three Redis with a Sentinel each instead of one Redis.
        A bare lab has network, storage, Redis, BMCs and hosts with libvirtd, but no Fangnetz and no running VMs.
        Raises LabError, with everything removed again, if it cannot be brought up.
        """
        chosen = checked_name(name)
        if not 1 <= hosts <= HOSTS_MAX or not 0 <= vms <= VMS_MAX:
            raise LabUsageError(f"a lab has 1 to {HOSTS_MAX} hosts and 0 to {VMS_MAX} VMs")
        check_machine()
        if not bare:
            check_product()
        with _only_one(chosen):
            if _is_alive(chosen):
                raise LabError(f"lab {chosen} is up already; `fangnetz lab down --name {chosen}` removes it")
            _remove(chosen)
            say("building the guest image")
            image = guest_image()
            plan = Plan(
                name=chosen,
                subnet=free_subnet(tag_of(chosen)),
                hosts=tuple(f"host{number + 1}" for number in range(hosts)),
                controllers=("c1", "c2"),
                vms=tuple(f"vm{number + 1}" for number in range(vms)),
                policy=policy,
                storage_lock=storage_lock,
                bare=bare,
                flower_port=_free_port(),
                sentinel=sentinel,
                slots=slots,
                isolated=isolated,
            )
            lab = cls(plan)
            try:
                lab._build(image_writer=lambda: write_definitions(plan, image), say=say)
            except LabError as error:
                kept = _keep_logs(plan)
                _remove(chosen)
                raise LabError(f"{error} (logs: {kept})") from error
            except BaseException:
                _remove(chosen)
                raise
            (plan.folder / "ready").touch()
        return lab

    @classmethod
    def open(cls, name: str | None = None) -> Self:
        """Return a lab that is up. Raises LabError if there is none of that name."""
        check_root()
        return cls(Plan.load(checked_name(name)))

    @classmethod
    def remove(cls, name: str | None = None) -> None:
        """Remove a lab, up or wrecked or not there."""
        check_root()
        chosen = checked_name(name)
        with _only_one(chosen):
            _remove(chosen)

    @classmethod
    def names(cls) -> list[str]:
        """Return the names of all labs of this machine that left a folder."""
        root = root_folder()
        return sorted(path.name for path in root.iterdir() if path.is_dir()) if root.is_dir() else []

    @property
    def name(self) -> str:
        """The lab's name."""
        return self.plan.name

    @property
    def config_path(self) -> Path:
        """The cluster file."""
        return self.plan.config_path

    def power(self, host_id: str, to: Literal["off", "on"]) -> float:
        """Pull a host's plug, or put it back. Return the instant before the effect, seconds since the epoch."""
        self._check_host(host_id)
        return host.power_off(self.plan, host_id) if to == "off" else host.power_on(self.plan, host_id)

    def cut(self, node: str, link: Link = "cluster", direction: Direction = "both") -> float:
        """Cut a link of a host, a controller or `redis`; it stays cut over power cycles. Return the instant before."""
        return cuts.cut(self.plan, node, link, direction)

    def heal(self, node: str, link: Link = "cluster") -> float:
        """Undo a cut. Return the instant before the effect."""
        return cuts.heal(self.plan, node, link)

    def freeze(self, target: str, *, kernel_answers: bool = False) -> float:
        """Freeze a machine, `MACHINE/ROLE` or a process number. Return the instant before the effect."""
        return freeze.freeze(self.plan, target, kernel_answers=kernel_answers)

    def thaw(self, target: str) -> float:
        """Undo a freeze. Return the instant before the effect."""
        return freeze.thaw(self.plan, target)

    def bmc(self, host_id: str, mode: BmcMode) -> float:
        """Make a host's BMC behave so. Return the instant before the effect."""
        self._check_host(host_id)
        if mode not in MODES:
            raise LabUsageError(f"a BMC can be {', '.join(MODES)}, not {mode!r}")
        return bmc.set_bmc_mode(self.plan, host_id, mode)

    def store(self, verb: StoreVerb, node: str = "redis") -> float:
        """Do to the store what store_fault says. Return the instant before the effect."""
        if verb not in VERBS:
            raise LabUsageError(f"a store can be told {', '.join(VERBS)}, not {verb!r}")
        return store_fault(self.plan, verb, node)

    def witness(self) -> dict[str, Any]:
        """Return the witness's report: boots, overlaps and gaps of every VM's disk."""
        return verdict.read_report(self.plan)

    def status(self) -> dict[str, Any]:
        """Return every process, address, power state, cut and BMC mode."""
        return lab_status(self.plan)

    def in_host(self, host_id: str, *command: str, tolerate: bool = False) -> str:
        """Run a command on a host that is on, as one would at its console; return its output."""
        self._check_host(host_id)
        pid = host.init_pid(self.plan, host_id)
        if pid is None:
            raise LabError(f"{host_id} is off")
        return run("nsenter", "-t", str(pid), "-a", "-r", *command, timeout_s=60, tolerate=tolerate)

    def start_behind_back(self, host_id: str, vm: str) -> float:
        """Start a VM by libvirt alone, as a careless person would. Return the instant before."""
        if vm not in self.plan.vms:
            raise LabError(f"no VM {vm!r} in lab {self.name}; there are {', '.join(self.plan.vms)}")
        at = time.time()
        self.in_host(host_id, "virsh", "-q", "-c", "qemu:///system", "create", str(xml_path(self.plan, vm)))
        return at

    def fangnetz(self, *words: str) -> Any:
        """Run `fangnetz WORDS --json` on this lab's cluster and return what it printed. Raises LabError if it fails."""
        program = Path(sys.executable).parent / "fangnetz"
        command = [str(program), "--config", str(self.config_path), *words, "--json"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        if done.returncode != 0:
            said = (done.stderr or done.stdout).strip().splitlines()
            raise LabError(
                f"`fangnetz {' '.join(words)}` exited with {done.returncode}: {said[-1] if said else 'silently'}"
            )
        return json.loads(done.stdout)

    def wait_until_running(self, within_s: float = VMS_WITHIN_S) -> None:
        """Wait until Fangnetz calls every VM running and all are seen writing. Raises LabError saying what lacks."""
        until = time.monotonic() + within_s
        while True:
            writing = self._writing()
            silent = [vm for vm in self.plan.vms if vm not in writing]
            stopped, said = ([], "") if silent else self._not_running()
            if not silent and not stopped:
                return
            if time.monotonic() > until:
                lacks = (
                    f"nobody writes on {', '.join(silent)}"
                    if silent
                    else f"Fangnetz does not call {', '.join(stopped)} running"
                )
                said = said or self._not_running()[1]
                raise LabError(f"after {within_s:g} s {lacks}{f'; {said}' if said else ''}")
            time.sleep(0.2 if silent else 1)

    def down(self) -> None:
        """Remove everything of this lab. Harmless when it is gone."""
        Lab.remove(self.name)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.down()

    def _build(self, *, image_writer: Callable[[], None], say: Say) -> None:
        plan = self.plan
        for folder in _FOLDERS:
            (plan.folder / folder).mkdir(parents=True, exist_ok=True)
        plan.save()
        say(f"building the network {plan.subnet}")
        passwords = make_secrets(plan)
        build_network(plan)
        image_writer()
        write_cluster_file(plan)
        say("starting storage, Redis, BMCs and hosts")
        start_storage(plan)
        start_stores(plan, passwords)
        for each in plan.hosts:
            build_host(plan, each)
            build_bmc(plan, each, passwords[f"bmc-{each}"])
        verdict.start_witness(plan)
        with ThreadPoolExecutor(max_workers=4) as pool:
            list(pool.map(lambda each: host.power_on(plan, each), plan.hosts))
        if not plan.bare:
            start_controllers(plan)
        self._wait_for_libvirt()
        self.in_host(plan.hosts[0], "virsh", "-q", "-c", "qemu:///system", "capabilities")
        keep_capabilities(plan)
        wait_until(self._witness_missing, WITNESS_WITHIN_S, 0.05)
        if not plan.bare:
            say("waiting for every VM to run and to write")
            self.wait_until_running()

    def _wait_for_libvirt(self) -> None:
        until = time.monotonic() + LIBVIRT_WITHIN_S
        for each in self.plan.hosts:
            while True:
                try:
                    socket.create_connection((str(self.plan.address(each)), LIBVIRT_PORT), timeout=1).close()
                    break
                except OSError as error:
                    if not host.host_is_on(self.plan, each):
                        raise LabError(f"{each} went off while it started") from error
                    if time.monotonic() > until:
                        raise LabError(
                            f"libvirtd of {each} does not listen after {LIBVIRT_WITHIN_S:g} s: {error}"
                        ) from error
                    time.sleep(0.1)

    def _witness_missing(self) -> str:
        try:
            self.witness()
        except LabError as error:
            return str(error)
        return ""

    def _writing(self) -> set[str]:
        try:
            return verdict.writing_now(self.witness())
        except LabError:
            return set()

    def _not_running(self) -> tuple[list[str], str]:
        try:
            listed = self.fangnetz("vm", "list")["items"]
        except (LabError, ValueError, KeyError, subprocess.TimeoutExpired) as error:
            return list(self.plan.vms), str(error)
        running = {item["name"] for item in listed if item["state"] == "running"}
        return [vm for vm in self.plan.vms if vm not in running], ""

    def _check_host(self, host_id: str) -> None:
        if host_id not in self.plan.hosts:
            raise LabError(f"no host {host_id!r} in lab {self.name}; there are {', '.join(self.plan.hosts)}")


@contextmanager
def _only_one(name: str) -> Iterator[None]:
    """Let no second `up` or `down` of the same lab run at once; leaves no file when the lab is gone."""
    root = root_folder()
    path = root / f".{name}.lock"
    while True:
        root.mkdir(parents=True, exist_ok=True)
        with path.open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not path.exists() or not os.path.samestat(os.fstat(lock.fileno()), path.stat()):
                continue  # whoever held it removed the file with the lab: lock the new one
            try:
                yield
            finally:
                if not (root / name).exists():
                    path.unlink(missing_ok=True)
                    _remove_if_empty(root)
            return


def _is_alive(name: str) -> bool:
    folder = root_folder() / name
    if not (folder / "ready").exists():
        return False
    roles = {process.role for process in processes_of(name, tag_of(name))}
    return {"tgtd", "witness", "redis"} <= roles


def _remove(name: str) -> None:
    tag, folder = tag_of(name), root_folder() / name
    hosts = sorted((folder / "hosts").iterdir()) if (folder / "hosts").is_dir() else []
    if hosts:
        _pull_plugs(hosts)
    end_all(name, tag)
    remove_network(tag)
    if namespaces_of(tag):
        raise LabError(f"namespaces of lab {name} could not be removed: {', '.join(namespaces_of(tag))}")
    shutil.rmtree(folder, ignore_errors=True)
    if folder.exists():
        raise LabError(f"{folder} could not be removed; is something mounted or open in it?")


def _pull_plugs(folders: Sequence[Path]) -> None:
    def pull(folder: Path) -> None:
        if (folder / "env").exists():
            try:
                script("power-off", folder)
            except LabError:
                return  # a wreck: its processes and namespaces are ended one by one afterwards

    with ThreadPoolExecutor(max_workers=4) as pool:
        list(pool.map(pull, folders))


def _keep_logs(plan: Plan) -> Path:
    """Copy the logs of a lab that did not come up to where they outlive it; only the last failure is kept."""
    kept = Path("/var/cache/fangnetz-lab") / "last-failure"
    shutil.rmtree(kept, ignore_errors=True)
    for path in sorted(plan.folder.rglob("*.log")):
        target = kept / path.relative_to(plan.folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    return kept


def _remove_if_empty(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError:
        return


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
