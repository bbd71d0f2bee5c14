"""What the end-to-end tests say to a lab and ask of it: wait for a state of the world, and bring all back to rest."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fangnetz.cli.main import main as fangnetz
from fangnetz.lab import Lab, LabError
from fangnetz.lab.storm.lookout import Lookout
from fangnetz.lab.verdict import writing_now

REST_WITHIN_S = 90.0


class Cluster:
    """A lab that is up, seen through the product's own command line, the witness and the lookout."""

    def __init__(self, lab: Lab, lookout: Lookout) -> None:
        self.lab = lab
        self.lookout = lookout

    # -- asking --

    def asked(self, *words: str) -> str:
        """Return what `fangnetz WORDS` prints, asked in this process: a command for every look is a core's whole work.

        Raises LabError if it fails.
        """
        said, complaint = io.StringIO(), io.StringIO()
        config = os.environ.get("FANGNETZ_CONFIG")
        try:
            with contextlib.redirect_stdout(said), contextlib.redirect_stderr(complaint):
                code = fangnetz(["--config", str(self.lab.config_path), *words])
        finally:  # the command line tells its parts by it where the cluster file is
            os.environ.pop("FANGNETZ_CONFIG", None)
            if config is not None:
                os.environ["FANGNETZ_CONFIG"] = config
        if code != 0:
            raise LabError(f"`fangnetz {' '.join(words)}` exited with {code}: {complaint.getvalue().strip()}")
        return said.getvalue()

    def listed(self, noun: str) -> Any:
        return json.loads(self.asked(noun, "list", "--json"))

    def status(self) -> Any:
        return json.loads(self.asked("status", "--json"))

    def epoch(self) -> int:
        """The epoch of whoever decides or decided last; 0 where nobody did."""
        lease = self.status()["lease"]
        return int(lease["epoch"]) if lease else 0

    def host(self, name: str) -> dict[str, Any]:
        return next(item for item in self.listed("host")["items"] if item["id"] == name)

    def hosts(self) -> dict[str, dict[str, Any]]:
        return {item["id"]: item for item in self.listed("host")["items"]}

    def vm(self, name: str) -> dict[str, Any]:
        return next(item for item in self.listed("vm")["items"] if item["name"] == name)

    def vms(self) -> dict[str, dict[str, Any]]:
        return {item["name"]: item for item in self.listed("vm")["items"]}

    def on(self, host: str) -> list[str]:
        return [name for name, vm in self.vms().items() if vm["host"] == host and vm["state"] == "running"]

    def busiest(self) -> str:
        return max(self.lab.plan.hosts, key=lambda host: len(self.on(host)))

    def incidents(self) -> list[dict[str, Any]]:
        return list(self.listed("incident")["items"])

    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.asked("events", "--limit", "2000", "--json").splitlines() if line]

    def refused(self, *words: str) -> str:
        """Run a command that must be refused: exit 1 and a sentence, which is returned."""
        program = str(Path(sys.executable).parent / "fangnetz")
        done = subprocess.run(
            [program, "--config", str(self.lab.config_path), *words], capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 1, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done.stderr

    def a_move(self) -> tuple[str, str, str]:
        """Return a VM, the host it runs on and another one."""
        source = self.busiest()
        target = next(host for host in self.lab.plan.hosts if host != source)
        return self.on(source)[0], source, target

    def boot_ids(self, vm: str) -> list[str]:
        """Return the boots of a guest that wrote, the first one first."""
        return [each["boot"] for each in self.boots(vm)]

    def cursor(self) -> float:
        """The instant to look for events from."""
        return time.time()

    def since(self, at: float, *kinds: str) -> list[dict[str, Any]]:
        return [event for event in self.events() if event["at"] >= at and (not kinds or event["kind"] in kinds)]

    def boots(self, vm: str) -> list[dict[str, Any]]:
        return list(self.lab.witness()["vms"][vm]["boots"])

    def writing(self) -> set[str]:
        return writing_now(self.lab.witness())

    def first_write_after(self, vm: str, at: float) -> float | None:
        """When a boot that began after `at` first wrote."""
        return next((boot["first_at"] for boot in self.boots(vm) if boot["first_at"] > at), None)

    # -- waiting --

    def until(self, true: Callable[[], object], within_s: float, what: str) -> None:
        """Wait for a condition; fail with what was waited for and the last events."""
        end = time.monotonic() + within_s
        while True:
            try:
                if true():
                    return
            except LabError:
                if time.monotonic() > end:
                    raise
            if time.monotonic() > end:
                tail = "\n".join(f"{e['at']:.2f} {e['kind']}: {e['sentence']}" for e in self.events()[-25:])
                raise AssertionError(f"not within {within_s:g} s: {what}\n{tail}")
            time.sleep(0.25)

    def incident_of(self, host: str, at: float, within_s: float = 60.0) -> dict[str, Any]:
        """Wait for the failover of `host` that was opened after `at` to end; return its incident."""
        found: dict[str, Any] = {}

        def ended() -> bool:
            for item in self.incidents():
                if item["host"] == host and item["opened_at"] > at and item["state"] != "open":
                    found.update(item)
                    return True
            return False

        self.until(ended, within_s, f"the failover of {host} ends")
        return found

    # -- being watched --

    @contextmanager
    def judged(self) -> Iterator[None]:
        """Bring all to rest; fail afterwards with what may never be, whatever was tested.

        A test that starts a copy by its own hand, or by a lie, says so with `lookout.on_purpose(vm)`.
        """
        self.rest()
        self._judge("after the last test, on the way to rest")
        yield
        self._judge("in this test")

    def _judge(self, when: str) -> None:
        news = self.lookout.news()
        assert news == (), "\n".join((f"{when}:", *news))

    # -- resting --

    def rest(self) -> None:
        """Thaw, heal, mend and switch on everything, and wait until all is as wished and every host protected."""
        lab = self.lab
        for node in (*lab.plan.hosts, *lab.plan.controllers):
            try:
                lab.thaw(node)
            except LabError:
                continue
        for node in lab.plan.hosts:
            lab.bmc(node, "ok")
            for link in ("cluster", "storage"):
                lab.heal(node, link)
        for node in lab.plan.controllers:
            lab.heal(node)
        for host in lab.status()["hosts"]:
            if host["power"] != "on":
                lab.power(host["id"], "on")

        def said(host: dict[str, Any]) -> str:
            return str(host["verdict"]["finding"]) if host["verdict"] else ""

        def calm() -> bool:
            hosts, vms = self.hosts(), self.vms()
            return (
                # "Online" may be what a store that was put back remembers; only a fresh report makes it so.
                all(h["state"] == "online" and h["protected"] and said(h) == "alive" for h in hosts.values())
                and all(vm["state"] == vm["wish"] for vm in vms.values())
                and set(lab.plan.vms) <= self.writing()
                and not [o for o in self.listed("operation")["items"] if o["state"] == "open"]
            )

        self.until(calm, REST_WITHIN_S, "every host is online and protected, every VM runs and writes")

    def gather(self, host: str) -> None:
        """Bring every VM onto one host, by powering the others off and on again."""
        others = [other for other in self.lab.plan.hosts if other != host]
        for other in others:
            at = self.lab.power(other, "off")
            self.incident_of(other, at)
        for other in others:
            self.lab.power(other, "on")
        self.rest()
