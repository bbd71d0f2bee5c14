"""One IPMI 2.0 BMC per host: OpenIPMI's ipmi_sim, whose chassis script reads and switches the host's power.

It answers while its host is off. It can be told to misbehave as real ones do; it never does so by itself.
"""

from __future__ import annotations

import shlex
import signal
import time
from typing import Literal, get_args

from fangnetz.lab.errors import LabError
from fangnetz.lab.host import bmc_guid
from fangnetz.lab.plan import IPMI_PORT, Plan
from fangnetz.lab.processes import processes_of, send, start
from fangnetz.lab.run import SCRIPTS

BmcMode = Literal["ok", "dark", "lying", "slow", "wrong-password"]
MODES: tuple[BmcMode, ...] = get_args(BmcMode)
USER = "admin"
_ROLE = "bmc"


def build_bmc(plan: Plan, host: str, password: str) -> None:
    """Write a BMC's settings and start it."""
    folder = plan.folder / "bmc" / host
    (folder / "state").mkdir(parents=True)
    (folder / "env").write_text(
        f"HOST_FOLDER={shlex.quote(str(plan.host_folder(host)))}\nSCRIPTS={shlex.quote(str(SCRIPTS))}\n"
    )
    (folder / "chassis.sh").symlink_to(SCRIPTS / "chassis.sh")
    guid = bmc_guid(plan, host).hex
    (folder / "commands").write_text(
        "mc_setbmc 0x20\nmc_add 0x20 0 no-device-sdrs 0x23 9 8 0x9f 0x1291 0xf02\n"
        f"mc_set_guid 0x20 {guid}\nsel_enable 0x20 100 0x0a\nmc_enable 0x20\n"
    )
    (folder / "password").write_text(f"{password}\n")
    (folder / "password").chmod(0o600)
    (folder / "mode").write_text("ok\n")
    _start(plan, host, password)


def bmc_mode(plan: Plan, host: str) -> BmcMode:
    """Return how a BMC behaves now."""
    kept = (plan.folder / "bmc" / host / "mode").read_text().strip()
    return next(mode for mode in MODES if mode == kept)


def set_bmc_mode(plan: Plan, host: str, mode: BmcMode) -> float:
    """Make a BMC behave so. Return the instant just before."""
    folder = plan.folder / "bmc" / host
    password = (folder / "password").read_text().strip()
    at = time.time()
    was = bmc_mode(plan, host)
    (folder / "mode").write_text(f"{mode}\n")
    if mode != "lying":
        (folder / "lied").unlink(missing_ok=True)
    if mode == "dark":
        _stop(plan, host)
    elif was in ("dark", "wrong-password") or mode == "wrong-password":
        _stop(plan, host)
        _start(plan, host, f"not-{password[:10]}" if mode == "wrong-password" else password)
    return at


def _start(plan: Plan, host: str, password: str) -> None:
    folder = plan.folder / "bmc" / host
    auths = "".join(
        f"    allowed_auths_{level} none md2 md5 straight\n" for level in ("callback", "user", "operator", "admin")
    )
    config = folder / "lan.conf"
    config.write_text(
        f'name "{host}"\nset_working_mc 0x20\n  startlan 1\n'
        f"    addr {plan.address(f'bmc-{host}', 'bmc')} {IPMI_PORT}\n    priv_limit admin\n{auths}"
        f"    guid {bmc_guid(plan, host).hex}\n  endlan\n"
        f'  chassis_control "{folder}/chassis.sh"\n'
        f'  user 1 true "" "" user 10 none md2 md5 straight\n'
        f'  user 2 true "{USER}" "{password}" admin 10 none md2 md5 straight\n'
    )
    config.chmod(0o600)
    start(
        name=plan.name,
        node=f"bmc-{host}",
        role=_ROLE,
        command=["ipmi_sim", "-n", "-c", config, "-f", folder / "commands", "-s", folder / "state"],
        logs=folder,
        netns=plan.namespace(f"bmc-{host}"),
    )


def _stop(plan: Plan, host: str) -> None:
    until = time.monotonic() + 5
    while found := [p for p in processes_of(plan.name, plan.tag) if p.node == f"bmc-{host}"]:
        if time.monotonic() > until:
            raise LabError(f"the BMC of {host} did not stop within 5 s")
        for process in found:
            send(process, signal.SIGKILL)
        time.sleep(0.01)
