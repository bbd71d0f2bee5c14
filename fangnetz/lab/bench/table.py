"""The bench's figures as a person reads them, in 80 columns. Takes the JSON value and adds nothing to it."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

_COLUMNS = ("detection_s", "fence_s", "plan_start_s", "boot_s")


def show(console: Console, report: dict[str, Any]) -> None:
    """Print all of it."""
    console.print()
    console.print(
        Text("Recovery", style="bold"), Text("seconds from the cause to the last VM's first write", style="dim")
    )
    console.print(_recovery(report))
    for row in report["series"]:
        if row["error"]:
            console.print(f"  {row['name']} ended early: {row['error']}", style="red", markup=False)
    console.print()
    console.print(Text("What it should take", style="bold"), Text("medians, seconds", style="dim"))
    console.print(_expected(report))
    console.print()
    console.print(Text("At rest", style="bold"))
    for boot in report["idle_boot"]:
        took = boot["last_s"]
        if took is not None:
            console.print(
                f"  guest boot, {boot['at_once']} at once: {_spread(took)} ({_load(boot['load'])})",
                markup=False,
            )
    for worker in report["idle_host_worker"]:
        console.print(f"  idle host workers, {worker['policy']} ({_load(worker['load'])})", markup=False)
        for cost in worker["hosts"]:
            console.print(
                f"    {cost['host']}: {cost['pss_bytes'] / 1e6:.1f} MB, processes: {cost['processes']}, "
                f"{cost['cpu_share'] * 100:.2f} % of a core over {cost['seconds']:.0f} s",
                markup=False,
            )
    _show_crashes(console, report)
    _show_emptying(console, report["emptying"])
    _show_simulation(console, report["simulation"])
    console.print()
    console.print(Text("Goals", style="bold"))
    console.print(_goals(report))


def _show_crashes(console: Console, report: dict[str, Any]) -> None:
    journal = report["journal"]
    if journal is None and not report["resume"]:
        return
    console.print()
    console.print(Text("What a crash costs", style="bold"))
    if journal is not None:
        console.print(
            f"  the journal, a step: {journal['step_us']:.0f} µs (claim {journal['claim_us']:.0f}, renewal "
            f"{journal['renew_us']:.0f}, outcome {journal['settle_us']:.0f}; {_load(journal['load'])})",
            markup=False,
        )
    for each in report["resume"]:
        took = each["resumed_s"]
        if took is not None:
            console.print(
                f"  {each['process']} killed, its work goes on after {_spread(took)} ({_load(each['load'])})",
                markup=False,
            )
        for words in each["faults"]:
            console.print(f"    {words}", style="red", markup=False)


def _show_emptying(console: Console, found: dict[str, Any] | None) -> None:
    if found is None:
        return
    console.print()
    console.print(Text(f"Emptying a host of {found['guests']} guests", style="bold"))
    gaps = ", ".join(f"{vm} {gap['ours']:.2f} s ({gap['serial']:.2f} s)" for vm, gap in found["longest_gap_s"].items())
    for words in (
        f"  the last guest runs elsewhere after {_spread(found['last_s'])}, the host is out after "
        f"{_spread(found['idle_s'])}",
        f"  the same moves one after the other by virsh: {_spread(found['serial_s'])}; "
        f"ratio {found['ratio']['median']:.2f} ({_load(found['pairs'][0]['load'])})",
        f"  longest without a write (by virsh): {gaps}",
    ):
        console.print(words, markup=False)


def _show_simulation(console: Console, cost: dict[str, Any] | None) -> None:
    if cost is None:
        return
    console.print()
    console.print(Text("Simulation", style="bold"))
    for words in (
        f"  stories by chance: {cost['seeds_a_minute']:.0f} a minute, {cost['laws_broken']} broke a law",
        f"  a big cluster's bad day: {cost['big_s']:.0f} s, {cost['big_starts']} starts",
        *(
            f"  one decision about {tick['hosts']} hosts with {tick['vms']} VMs: {tick['decide_s'] * 1000:.1f} ms"
            for tick in cost["ticks"]
        ),
    ):
        console.print(f"{words} ({_load(cost['load'])})", markup=False)


def _spread(took: dict[str, float]) -> str:
    return f"{took['min']:.1f} … {took['median']:.1f} … {took['max']:.1f} s"


def _recovery(report: dict[str, Any]) -> Table:
    table = _table("series", "min", "median", "max", "detect", "fence", "plan", "boot", "overlaps", "rounds", "load")
    for row in report["series"]:
        took, parts = row["last_vm_s"], row["phases_of_last_vm"]
        if took is None:
            table.add_row(row["name"], *["–"] * 10)
            continue
        loads = [each["load"]["load_1min"] for each in row["rounds"]]
        table.add_row(
            row["name"],
            f"{took['min']:.1f}",
            Text(f"{took['median']:.1f}", style="bold"),
            f"{took['max']:.1f}",
            *(f"{parts[name]['median']:.1f}" for name in _COLUMNS),
            Text(str(row["overlaps"]), style="red" if row["overlaps"] else "green"),
            str(took["count"]),
            f"≤ {max(loads):.0f}",
        )
    return table


def _expected(report: dict[str, Any]) -> Table:
    table = _table("series", "window", "fence", "boot", "sum", "took", "ratio", "own overhead", "before the start")
    for row in report["series"]:
        if row["expected_s"] is None or row["last_vm_s"] is None:
            continue
        table.add_row(
            row["name"],
            f"{row['window_s']['median']:.1f}",
            f"{row['fence_device_s']['median']:.2f}",
            f"{row['idle_boot_s']:.1f}",
            f"{row['expected_s']['median']:.1f}",
            f"{row['last_vm_s']['median']:.1f}",
            f"{row['ratio']['median']:.2f}",
            Text(f"{row['own_overhead_s']['median']:.2f}", style="bold"),
            f"{row['own_before_start_s']['median']:.2f}",
        )
    return table


def _goals(report: dict[str, Any]) -> Table:
    table = _table("goal", "at most", "measured", "")
    for goal in report["goals"]:
        word = Text("met", style="green") if goal["met"] else Text("missed", style="red")
        measured = "–" if goal["measured"] is None else f"{goal['measured']:g}"
        table.add_row(goal["goal"], f"{goal['limit']:g}", measured, word)
    return table


def _table(*heads: str) -> Table:
    table = Table(box=None, padding=(0, 1), collapse_padding=True, header_style="dim")
    for number, head in enumerate(heads):
        table.add_column(head, justify="left" if number == 0 or not head else "right", no_wrap=True)
    return table


def _load(load: dict[str, Any]) -> str:
    others = f", other labs: {load['other_labs']}" if load["other_labs"] else ""
    return f"load {load['load_1min']:.1f}, {load['cores']} cores{others}"
