"""`fangnetz lab`: a whole cluster of real libvirt hosts on this machine, to try things on. Touches nothing else."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from fangnetz.lab import Lab, LabError, LabUsageError

app = typer.Typer(no_args_is_help=True, help="A lab of real libvirt hosts on this machine (needs root).")
_out = Console()
_err = Console(stderr=True)


class PolicyName(StrEnum):
    """Profiles of the policy."""

    DEFAULT = "default"
    FAST = "fast"


class Power(StrEnum):
    """What a plug can be."""

    OFF = "off"
    ON = "on"


class LinkName(StrEnum):
    """Networks a machine is wired to."""

    CLUSTER = "cluster"
    STORAGE = "storage"
    BMC = "bmc"


class DirectionName(StrEnum):
    """Which frames a cut loses, seen from the machine."""

    BOTH = "both"
    IN = "in"
    OUT = "out"


class Mode(StrEnum):
    """How a BMC behaves."""

    OK = "ok"
    DARK = "dark"
    LYING = "lying"
    SLOW = "slow"
    WRONG_PASSWORD = "wrong-password"  # noqa: S105  (the name of a fault)


class StoreDeed(StrEnum):
    """What can be done to a store."""

    KILL = "kill"
    STOP = "stop"
    START = "start"
    HANG = "hang"
    RESUME = "resume"
    WIPE = "wipe"
    SAVE = "save"
    ROLLBACK = "rollback"
    PART = "part"
    JOIN = "join"


Name = Annotated[str | None, typer.Option("--name", help="Which lab; the default is this checkout's own.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]
Host = Annotated[str, typer.Argument(metavar="HOST", help="host1, host2, …")]
Node = Annotated[str, typer.Argument(metavar="MACHINE", help="A host, a controller (c1, c2) or redis.")]
Target = Annotated[
    str, typer.Argument(metavar="TARGET", help="A machine, MACHINE/ROLE such as host1/worker or c1/beat, or a pid.")
]
Link = Annotated[LinkName, typer.Option("--link", help="Which of its links.")]


@app.command("up")
def up(
    name: Name = None,
    hosts: Annotated[int, typer.Option("--hosts", min=1, max=40, help="How many hosts.")] = 3,
    vms: Annotated[int, typer.Option("--vms", min=0, max=40, help="How many VMs.")] = 4,
    policy: Annotated[PolicyName, typer.Option("--policy", help="Profile of the policy.")] = PolicyName.DEFAULT,
    storage_lock: Annotated[
        bool, typer.Option("--storage-lock/--no-storage-lock", help="With the storage lease as the last barrier.")
    ] = False,
    bare: Annotated[
        bool, typer.Option("--bare", help="Hosts with libvirt, storage, BMCs and Redis; no Fangnetz.")
    ] = False,
    sentinel: Annotated[
        bool, typer.Option("--sentinel", help="Three Redis with a Sentinel each, instead of one Redis.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Bring a lab up; return when all its VMs run and are seen writing."""
    with _sentences():
        at = time.time()
        lab = Lab.up(
            name=name,
            hosts=hosts,
            vms=vms,
            policy=policy.value,
            storage_lock=storage_lock,
            bare=bare,
            sentinel=sentinel,
            say=lambda words: _err.print(f"[dim]lab: {words}[/dim]"),
        )
        status = lab.status()
        if as_json:
            _print_json({"at": at, **{key: status[key] for key in ("name", "folder", "config", "flower")}})
            return
        _out.print(
            f"Lab {lab.name} is up after {time.time() - at:.0f} s; its cluster file is {lab.config_path}",
            soft_wrap=True,
        )
        if status["flower"]:
            _out.print(
                f"Flower: {status['flower']['url']} (admin, password in {status['flower']['password_file']})",
                soft_wrap=True,
            )


@app.command("down")
def down(
    name: Name = None,
    everything: Annotated[bool, typer.Option("--all", help="Every lab of this machine.")] = False,
    as_json: Json = False,
) -> None:
    """Remove a lab, up or wrecked; it leaves nothing. Harmless when there is none."""
    with _sentences():
        if everything and name is not None:
            raise LabUsageError("give --name or --all, not both")
        at = time.time()
        for each in Lab.names() if everything else [name]:
            Lab.remove(each)
        _answer(at, as_json, "Gone.")


@app.command("status")
def status(name: Name = None, as_json: Json = False) -> None:
    """Show every process, address, power state, cut and BMC."""
    with _sentences():
        found = Lab.open(name).status()
        if as_json:
            _print_json(found)
        else:
            _show_status(found)


@app.command("power")
def power(
    host: Host, to: Annotated[Power, typer.Argument(metavar="off|on")], name: Name = None, as_json: Json = False
) -> None:
    """Pull a host's plug, or put it back."""
    with _sentences():
        _answer(Lab.open(name).power(host, to.value), as_json, f"{host} is {to.value}.")


@app.command("cut")
def cut(
    machine: Node,
    link: Link = LinkName.CLUSTER,
    direction: Annotated[
        DirectionName,
        typer.Option("--direction", help="Lose what goes to the machine (in), comes from it (out), or both."),
    ] = DirectionName.BOTH,
    name: Name = None,
    as_json: Json = False,
) -> None:
    """Cut a link of a machine; it stays cut, over power cycles too, until healed."""
    with _sentences():
        at = Lab.open(name).cut(machine, link.value, direction.value)
        _answer(at, as_json, f"The {link.value} link of {machine} is cut ({direction.value}).")


@app.command("heal")
def heal(machine: Node, link: Link = LinkName.CLUSTER, name: Name = None, as_json: Json = False) -> None:
    """Undo a cut."""
    with _sentences():
        _answer(Lab.open(name).heal(machine, link.value), as_json, f"The {link.value} link of {machine} is whole.")


@app.command("freeze")
def freeze(
    target: Target,
    kernel_answers: Annotated[
        bool, typer.Option("--kernel-answers", help="A frozen machine's kernel goes on answering ping and TCP.")
    ] = False,
    name: Name = None,
    as_json: Json = False,
) -> None:
    """Freeze a whole machine (its VMs too), all processes of one role on it, or one process."""
    with _sentences():
        _answer(Lab.open(name).freeze(target, kernel_answers=kernel_answers), as_json, f"{target} is frozen.")


@app.command("thaw")
def thaw(target: Target, name: Name = None, as_json: Json = False) -> None:
    """Undo a freeze."""
    with _sentences():
        _answer(Lab.open(name).thaw(target), as_json, f"{target} goes on.")


@app.command("bmc")
def bmc(
    host: Host,
    mode: Annotated[Mode, typer.Argument(metavar="ok|dark|lying|slow|wrong-password")],
    name: Name = None,
    as_json: Json = False,
) -> None:
    """Make a host's BMC behave so."""
    with _sentences():
        _answer(Lab.open(name).bmc(host, mode.value), as_json, f"The BMC of {host} is {mode.value}.")


@app.command("store")
def store(
    verb: Annotated[StoreDeed, typer.Argument(metavar="kill|stop|start|hang|resume|wipe|save|rollback|part|join")],
    node: Annotated[str, typer.Option("--node", help="Which Redis.")] = "redis",
    name: Name = None,
    as_json: Json = False,
) -> None:
    """Kill, stop, hang, empty the store, put it back to an older state (save, rollback), part it from its replicas."""
    with _sentences():
        _answer(Lab.open(name).store(verb.value, node), as_json, f"The store on {node}: {verb.value}, done.")


@app.command("witness")
def witness(
    name: Name = None,
    watch: Annotated[bool, typer.Option("--watch", help="Report again every second, until interrupted.")] = False,
    as_json: Json = False,
) -> None:
    """Show who wrote on each VM's disk, and when nobody did."""
    with _sentences():
        lab = Lab.open(name)
        while True:
            report = lab.witness()
            if as_json:
                _print_json(report)
            else:
                _show_witness(report)
            if not watch:
                break
            time.sleep(1)


@app.command("faults")
def faults(as_json: Json = False) -> None:
    """List every fault point of the product: where a process can be made to fail."""
    from fangnetz.cli._json import print_list
    from fangnetz.engine.fault_points import POINTS

    if as_json:
        print_list({"point": point, "sentence": sentence} for point, sentence in POINTS.items())
        return
    table = Table("point", "what has happened there", box=None)
    for point, sentence in POINTS.items():
        table.add_row(point, sentence)
    _out.print(table)
    _out.print("Arm one with `fangnetz lab fault MACHINE/ROLE POINT[@HOST-OR-VM]:kill|freeze|hang|raise`", markup=False)


@app.command("fault")
def fault(
    process: Annotated[
        str, typer.Argument(metavar="MACHINE/ROLE", help="host1/worker, c1/control, c1/work or c1/fence.")
    ],
    words: Annotated[
        str, typer.Argument(metavar="POINT[@SUBJECT]:ACTION", help="kill, freeze, hang or raise; `off` takes it back.")
    ],
    name: Name = None,
    as_json: Json = False,
) -> None:
    """Make a process fail, once, at a fault point; `off` disarms it and lets a hung thread go on."""
    from fangnetz.lab.arming import arm, disarm

    with _sentences():
        at, plan = time.time(), Lab.open(name).plan
        if words == "off":
            disarm(plan, process)
        else:
            arm(plan, process, words)
        _answer(at, as_json, f"{process} is {'disarmed' if words == 'off' else f'armed: {words}'}.")


@contextmanager
def _sentences() -> Iterator[None]:
    try:
        yield
    except LabUsageError as error:
        _err.print(f"{error}", style="red", soft_wrap=True, markup=False, highlight=False)
        raise typer.Exit(2) from error
    except LabError as error:
        _err.print(f"{error}", style="red", soft_wrap=True, markup=False, highlight=False)
        raise typer.Exit(1) from error
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


def _print_json(value: Any) -> None:
    typer.echo(json.dumps(value))


def _answer(at: float, as_json: bool, sentence: str) -> None:
    if as_json:
        _print_json({"at": at})
    else:
        _out.print(sentence, markup=False, highlight=False)


def _show_status(status: dict[str, Any]) -> None:
    machines = Table(title=f"Lab {status['name']} ({status['subnet']})", title_justify="left")
    for column in ("machine", "power", "address", "cut links", "BMC"):
        machines.add_column(column)
    for host in status["hosts"]:
        links = ", ".join(f"{link} {direction}" for link, direction in host["cuts"].items())
        state = "frozen" if host["frozen"] else host["power"]
        machines.add_row(host["id"], state, host["address"], links, f"{host['bmc']['address']} {host['bmc']['mode']}")
    for controller in status["controllers"]:
        links = ", ".join(f"{link} {direction}" for link, direction in controller["cuts"].items())
        machines.add_row(controller["id"], "frozen" if controller["frozen"] else "", controller["address"], links, "")
    _out.print(machines)
    processes = Table()
    for column in ("machine", "role", "pid", "state"):
        processes.add_column(column)
    for process in status["processes"]:
        if not process["role"].endswith(".supervisor"):
            processes.add_row(process["host"], process["role"], str(process["pid"]), process["state"])
    _out.print(processes)
    _out.print(f"cluster file: {status['config']}", soft_wrap=True)
    if status["flower"]:
        _out.print(f"Flower: {status['flower']['url']}", soft_wrap=True)


def _show_witness(report: dict[str, Any]) -> None:
    table = Table(title="Witness", title_justify="left")
    for column in ("VM", "boots", "last write", "gaps", "overlaps"):
        table.add_column(column)
    for vm, seen in report["vms"].items():
        last = max((boot["last_at"] for boot in seen["boots"]), default=None)
        table.add_row(
            vm,
            str(len(seen["boots"])),
            "never" if last is None else f"{report['at'] - last:.1f} s ago",
            ", ".join(f"{gap['seconds']:.1f} s" for gap in seen["gaps"]),
            str(len(seen["overlaps"])),
            style="red" if seen["overlaps"] else None,
        )
    _out.print(table)


if __name__ == "__main__":
    sys.exit(app())
