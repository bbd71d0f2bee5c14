"""What only the libvirt adapter does, on libvirt's own test driver: fast, in-process, no privileges."""

from __future__ import annotations

import contextlib
import itertools
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import libvirt
import pytest

from fangnetz.adapters.boot_files import BootFilesOnDisk
from fangnetz.adapters.libvirt import LibvirtHypervisor, unanswered
from fangnetz.adapters.libvirt.bounded import BoundedCalls, Deadline
from fangnetz.adapters.libvirt.domain_xml import NO_MARK, Mark, mark_in, with_mark
from fangnetz.adapters.libvirt.refusals import has_ended, translate
from fangnetz.adapters.libvirt.unanswered import UnansweredStarts
from fangnetz.core.convergence import Advice
from fangnetz.core.errors import HypervisorRefused, HypervisorUnreachable, StaleToken, StartNotSent, StorageLeaseHeld
from fangnetz.core.model import Destination, Sighting
from fangnetz.core.units import Generation, HostId, Incarnation, Instant, Seconds, VmId
from fangnetz.ports import Departure, Migration

URI = "test:///default"
QEMU = "http://libvirt.org/schemas/domain/qemu/1.0"
numbers = itertools.count(1)


def xml(vm: str, extra: str = "") -> str:
    return f"<domain type='test'><name>{vm}</name><memory>4096</memory><os><type>hvm</type></os>{extra}</domain>"


@pytest.fixture
def boot(tmp_path: Path) -> BootFilesOnDisk:
    return BootFilesOnDisk(tmp_path / "run")


@pytest.fixture
def hypervisor(boot: BootFilesOnDisk) -> Iterator[LibvirtHypervisor]:
    hypervisor = LibvirtHypervisor(URI, boot)
    yield hypervisor
    hypervisor.close()


@pytest.fixture
def vm(hypervisor: LibvirtHypervisor) -> Iterator[VmId]:
    vm = VmId(f"web{next(numbers)}")
    yield vm
    hypervisor.destroy(vm)


def states(hypervisor: LibvirtHypervisor) -> dict[str, tuple[Sighting, Generation | None]]:
    return {domain.vm: (domain.state, domain.generation) for domain in hypervisor.domains()}


def test_shutdown_asks_and_destroy_ends(hypervisor: LibvirtHypervisor, vm: VmId) -> None:
    hypervisor.create(vm, xml(vm), Generation(1))
    hypervisor.shutdown(vm)
    assert vm not in states(hypervisor)  # the test driver's guests obey at once


def held(hypervisor: LibvirtHypervisor, vm: VmId) -> bool:
    (copy,) = [domain for domain in hypervisor.domains() if domain.vm == vm]
    return copy.held


def test_a_copy_we_paused_says_so_through_every_connection_and_one_paused_by_others_does_not(
    hypervisor: LibvirtHypervisor, vm: VmId, boot: BootFilesOnDisk
) -> None:
    hypervisor.create(vm, xml(vm), Generation(7), start_sent_at=Instant(1_700_000_000.25))
    assert not held(hypervisor, vm)  # and its mark is remembered by that connection
    other = libvirt.open(URI)
    other.lookupByName(vm).suspend()
    assert not held(hypervisor, vm)
    other.lookupByName(vm).resume()
    hypervisor.suspend(vm, Generation(7))
    assert held(hypervisor, vm)
    second = LibvirtHypervisor(URI, boot)
    try:
        assert held(second, vm)
    finally:
        second.close()
    assert {d.start_sent_at for d in hypervisor.domains() if d.vm == vm} == {1_700_000_000.25}
    other.lookupByName(vm).resume()  # a person decided: it runs
    assert not held(hypervisor, vm)
    other.close()


def test_the_mark_is_there_before_the_pause_and_gone_if_it_was_forbidden(
    hypervisor: LibvirtHypervisor, vm: VmId
) -> None:
    hypervisor.create(vm, xml(vm), Generation(7))
    other = libvirt.open(URI)
    there: list[bool] = []

    def look() -> None:
        there.append("held=" in other.lookupByName(vm).XMLDesc())
        if len(there) == 1:
            raise StaleToken("no longer in charge")

    with pytest.raises(StaleToken):
        hypervisor.suspend(vm, Generation(7), look)
    assert "held=" not in other.lookupByName(vm).XMLDesc()
    hypervisor.suspend(vm, Generation(7), look)
    assert there == [True, True]
    assert held(hypervisor, vm)
    other.close()


@pytest.mark.parametrize("trap", ["autostart", "managed save"])
def test_what_could_start_by_itself_is_refused(hypervisor: LibvirtHypervisor, trap: str) -> None:
    vm = VmId(f"own{next(numbers)}")
    other = libvirt.open(URI)
    defined = other.defineXML(xml(vm))
    try:
        if trap == "autostart":
            defined.setAutostart(1)
        else:
            defined.create()
            defined.managedSave()
        with pytest.raises(HypervisorRefused, match=trap):
            hypervisor.create(vm, xml(vm), Generation(1))
        assert vm not in states(hypervisor)
    finally:
        defined.undefineFlags(libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE)
        other.close()


@pytest.mark.parametrize(
    "bad",
    ["", "<domain>", "<network><name>web</name></network>", xml("other"), "<domain/>", xml("web", "<name>web</name>")],
)
def test_what_is_not_this_vms_definition_is_refused(hypervisor: LibvirtHypervisor, bad: str) -> None:
    with pytest.raises(HypervisorRefused):
        hypervisor.create(VmId("web"), bad, Generation(1))


def test_what_libvirt_does_not_understand_is_refused(hypervisor: LibvirtHypervisor) -> None:
    with pytest.raises(HypervisorRefused):
        hypervisor.create(VmId("web"), "<domain type='no-such'><name>web</name></domain>", Generation(1))


def test_the_generation_leaves_foreign_elements_alone() -> None:
    before = f"""<?xml version="1.0"?><!-- by hand --><domain type="qemu" xmlns:qemu="{QEMU}"><name>web</name>
    <metadata><app:note xmlns:app="urn:x">keep &amp; care</app:note>
    <old:vm xmlns:old="https://fangnetz.net/xmlns/domain/1" generation="3"/></metadata>
    <qemu:commandline><qemu:arg value='-S'/></qemu:commandline></domain>"""
    after = with_mark(before, VmId("web"), Mark(generation=Generation(9), start_sent_at=Instant(1_700_000_000.123456)))
    assert '<qemu:arg value="-S"/>' in after
    assert f'xmlns:qemu="{QEMU}"' in after
    assert "keep &amp; care" in after
    assert after.count("fangnetz.net/xmlns") == 1
    assert 'generation="9"' in after
    assert 'start_sent_at="1700000000123456"' in after
    assert 'generation="3"' not in after


@pytest.mark.parametrize(
    "text", ["", "<vm/>", "<vm generation=''/>", "<vm generation='x'/>", "<vm generation='-1'/>", "<vm"]
)
def test_a_garbled_generation_is_none(text: str) -> None:
    assert mark_in(text) == NO_MARK
    assert mark_in(text.replace("generation", "start_sent_at")) == NO_MARK
    assert mark_in("<vm generation='12'/>") == Mark(generation=Generation(12))  # as every copy was before
    assert mark_in("<vm generation='12' start_sent_at='x'/>") == Mark(generation=Generation(12))


def test_changes_are_told_soon_and_nothing_is_told_without_a_change(hypervisor: LibvirtHypervisor, vm: VmId) -> None:
    told = threading.Event()
    hypervisor.watch(told.set, every=Seconds(0.02))
    assert not told.wait(0.3)
    hypervisor.create(vm, xml(vm), Generation(1))
    assert told.wait(5)
    told.clear()
    hypervisor.destroy(vm)
    assert told.wait(5)


def test_a_closed_hypervisor_watches_no_more(boot: BootFilesOnDisk) -> None:
    hypervisor = LibvirtHypervisor(URI, boot)
    before = threading.active_count()
    hypervisor.watch(lambda: None, every=Seconds(0.02))
    hypervisor.close()
    deadline = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.02)
    assert threading.active_count() <= before


def test_two_threads_never_share_a_connection(boot: BootFilesOnDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    # libvirt's client library may crash the process otherwise.
    hypervisor, users, shared = LibvirtHypervisor(URI, boot), {}, []
    real = libvirt.virConnect.getAllDomainStats

    def watched(connection: libvirt.virConnect, *facts: int) -> object:
        mine = threading.get_ident()
        if users.setdefault(id(connection), mine) != mine:
            shared.append(connection)
        time.sleep(0.005)
        answer = real(connection, *facts)
        del users[id(connection)]
        return answer

    monkeypatch.setattr(libvirt.virConnect, "getAllDomainStats", watched)
    callers = [threading.Thread(target=lambda: [hypervisor.domains() for _ in range(5)]) for _ in range(6)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    hypervisor.close()
    assert shared == []


def test_a_libvirt_that_is_not_there_is_unreachable(boot: BootFilesOnDisk) -> None:
    for uri in ("qemu+unix:///system?socket=/nonexistent/socket", "qemu+tcp://127.0.0.1:1/system"):
        hypervisor = LibvirtHypervisor(uri, boot)
        with pytest.raises(HypervisorUnreachable):
            hypervisor.domains()
        with pytest.raises(HypervisorUnreachable):
            hypervisor.create(VmId("web"), xml("web"), Generation(1))
        with pytest.raises(HypervisorUnreachable):
            hypervisor.destroy(VmId("web"))


HANG = """
import sys, time
from pathlib import Path
import libvirt
from fangnetz.adapters.boot_files import BootFilesOnDisk
from fangnetz.adapters.libvirt import LibvirtHypervisor
def hang(*_):
    print("sent", flush=True)
    time.sleep(600)
libvirt.virConnect.createXML = hang
LibvirtHypervisor("test:///default", BootFilesOnDisk(Path(sys.argv[1]))).create(sys.argv[2], sys.argv[3], 7)
"""


def kill_while_it_waits_for_libvirt(boot_dir: Path, vm: VmId) -> None:
    """A worker is killed after it sent a start and before libvirt answered."""
    worker = subprocess.Popen([sys.executable, "-c", HANG, boot_dir, vm, xml(vm)], stdout=subprocess.PIPE)
    assert worker.stdout is not None
    assert worker.stdout.readline() == b"sent\n"
    worker.kill()
    worker.communicate()


def test_a_start_without_an_answer_outlives_the_worker_that_sent_it(tmp_path: Path) -> None:
    vm = VmId("outlives")
    kill_while_it_waits_for_libvirt(tmp_path / "run", vm)
    began = time.monotonic()
    next_worker = LibvirtHypervisor(URI, BootFilesOnDisk(tmp_path / "run"), settle_inherited=Seconds(1.0))
    for question in (
        lambda: next_worker.settled(vm),
        lambda: next_worker.destroy(vm),
        lambda: next_worker.create(vm, xml(vm), Generation(8)),
    ):
        with pytest.raises(HypervisorUnreachable, match="never answered"):
            question()
    next_worker.settled(VmId("another"))
    while time.monotonic() - began < 30:
        try:
            next_worker.settled(vm)
            break
        except HypervisorUnreachable:
            time.sleep(0.02)
    assert 1.0 <= time.monotonic() - began < 10
    LibvirtHypervisor(URI, BootFilesOnDisk(tmp_path / "run")).settled(vm)  # known to the one after it, too
    next_worker.close()


def test_the_settle_time_counts_from_when_libvirt_answers_again(tmp_path: Path) -> None:
    vm = VmId("frozen")
    kill_while_it_waits_for_libvirt(tmp_path / "run", vm)
    starts = UnansweredStarts(BootFilesOnDisk(tmp_path / "run"), Seconds(0.0), Seconds(0.2))
    time.sleep(0.3)
    with pytest.raises(HypervisorUnreachable):
        starts.refuse_while_any(vm, time.monotonic())
    starts.refuse_while_any(vm, time.monotonic() - 0.3)


def gone_stale() -> None:
    raise StaleToken("no longer in charge")


@pytest.mark.parametrize(
    ("how", "known"),
    [("answered", True), ("refused", True), ("not sent", True), ("sent too late", True), ("line broke", False),
     ("error of ours", False)],
)  # fmt: skip
def test_the_next_worker_waits_for_exactly_the_starts_whose_end_is_not_known(
    boot: BootFilesOnDisk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str, known: bool
) -> None:
    hypervisor, vm = LibvirtHypervisor(URI, boot), VmId(f"ends{next(numbers)}")
    real = libvirt.virConnect.createXML

    def create(connection: libvirt.virConnect, *facts: object) -> object:
        match how:
            case "refused":
                raise libvirt_error(1, 10, "internal error: process exited while connecting to monitor")
            case "line broke":
                raise libvirt_error(38, libvirt.VIR_FROM_RPC, "Cannot recv data: Connection reset by peer")
            case "error of ours":
                raise ZeroDivisionError
        return real(connection, *facts)

    monkeypatch.setattr(libvirt.virConnect, "createXML", create)
    if how == "sent too late":
        monkeypatch.setattr(Deadline, "check", lambda _self: gone_stale())
    with contextlib.suppress(HypervisorUnreachable, HypervisorRefused, StaleToken, ZeroDivisionError):
        hypervisor.create(vm, xml(vm), Generation(1), gone_stale if how == "not sent" else lambda: None)
    next_worker = LibvirtHypervisor(URI, BootFilesOnDisk(tmp_path / "run"))
    if known:
        next_worker.settled(vm)
    else:
        with pytest.raises(HypervisorUnreachable, match="never answered"):
            next_worker.settled(vm)
    monkeypatch.undo()
    if how == "answered":
        hypervisor.destroy(vm)
    hypervisor.close()


@pytest.mark.parametrize("why", ["No space left", "took"])
def test_a_start_that_cannot_be_noted_at_once_is_not_sent(
    hypervisor: LibvirtHypervisor, boot: BootFilesOnDisk, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    real = boot.note_start

    def note(vm: VmId, generation: Generation) -> str:
        if why == "took":
            time.sleep(0.1)
            return real(vm, generation)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(unanswered, "NOTE_BOUND_S", 0.05)
    monkeypatch.setattr(boot, "note_start", note)
    monkeypatch.setattr(libvirt.virConnect, "createXML", lambda *_: pytest.fail("it was sent"))
    vm = VmId(f"full{next(numbers)}")
    with pytest.raises(StartNotSent, match=why):
        hypervisor.create(vm, xml(vm), Generation(1))
    hypervisor.settled(vm)


def test_a_damaged_note_counts_as_an_unanswered_start_and_is_named(tmp_path: Path) -> None:
    boot, vm = BootFilesOnDisk(tmp_path / "run"), VmId("damaged")
    boot.note_start(vm, Generation(7))
    (note,) = (tmp_path / "run").rglob("damaged.json")
    note.write_bytes(b"\xff{")
    hypervisor = LibvirtHypervisor(URI, boot, settle_inherited=Seconds(0.3))
    with pytest.raises(HypervisorUnreachable, match="does not hold a start"):
        hypervisor.settled(vm)
    time.sleep(0.4)
    hypervisor.settled(vm)
    assert not note.exists()
    hypervisor.close()


def test_a_note_nobody_can_remove_is_late_and_never_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    boot, vm = BootFilesOnDisk(tmp_path / "run"), VmId("stays")
    hypervisor = LibvirtHypervisor(URI, boot)

    def broken(*_: object) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as dying:
        dying.setattr(boot, "forget_start", broken)
        hypervisor.create(vm, xml(vm), Generation(1))
    with pytest.raises(HypervisorUnreachable, match="never answered"):
        hypervisor.settled(vm)
    with pytest.raises(HypervisorUnreachable):
        hypervisor.destroy(vm)
    hypervisor.close()


def test_a_refusal_with_the_domain_there_all_the_same_is_no_refusal(
    hypervisor: LibvirtHypervisor, vm: VmId, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = libvirt.virConnect.createXML

    def start_and_deny(connection: libvirt.virConnect, *facts: object) -> None:
        real(connection, *facts)
        raise libvirt_error(1, 10, "internal error: something after the start went wrong")

    monkeypatch.setattr(libvirt.virConnect, "createXML", start_and_deny)
    with pytest.raises(HypervisorUnreachable):
        hypervisor.create(vm, xml(vm), Generation(1))
    assert vm in states(hypervisor)


# --- what errors mean ---


def libvirt_error(code: int, domain: int, message: str) -> libvirt.libvirtError:
    error = libvirt.libvirtError("x")
    error.err = (code, domain, message, 2, None, None, None, -1, -1)
    return error


@pytest.mark.parametrize(
    ("code", "domain", "message", "expected"),
    [
        (87, 51, "resource busy: Lockspace resource 'db1' is locked", StorageLeaseHeld),
        (1, 10, 'process exited while connecting to monitor: Failed to get "write" lock\nIs another', StorageLeaseHeld),
        (38, 51, "Unable to open resource /shared/fn/db1: No such file or directory", HypervisorRefused),
        (1, 10, "internal error: process exited while connecting to monitor: Could not open 'x'", HypervisorRefused),
        (9, 20, "operation failed: domain 'a' already exists with uuid", HypervisorRefused),
        (38, 7, "Cannot recv data: Connection reset by peer", HypervisorUnreachable),
        (38, 7, "Failed to connect socket to '/x': No such file or directory", HypervisorUnreachable),
        (1, 7, "internal error: client socket is closed", HypervisorUnreachable),
        (1, 0, "internal error: client socket is closed", HypervisorUnreachable),
        (39, 7, "internal error: received hangup event on socket", HypervisorUnreachable),
        (68, 10, "Timed out during operation: cannot acquire state change lock", HypervisorUnreachable),
    ],
)
def test_only_an_answer_is_a_refusal(code: int, domain: int, message: str, expected: type) -> None:
    assert type(translate(libvirt_error(code, domain, message))) is expected


def test_an_error_without_a_code_is_no_answer() -> None:
    assert type(translate(libvirt.libvirtError("gone"))) in (HypervisorUnreachable, HypervisorRefused)
    error = libvirt.libvirtError("gone")
    error.err = None
    assert type(translate(error)) is HypervisorUnreachable


# --- calls that hang ---


def test_stuck_threads_are_counted_limited_and_given_back() -> None:
    calls, gate = BoundedCalls("calls", abandoned_max=3), threading.Event()

    def hang(_deadline: Deadline) -> None:
        gate.wait()

    for _ in range(3):
        with pytest.raises(HypervisorUnreachable):
            calls.run(hang, Seconds(0.05))
    assert calls.abandoned == 3
    began = time.monotonic()
    with pytest.raises(HypervisorUnreachable, match="hangs"):
        calls.run(hang, Seconds(30))
    assert time.monotonic() - began < 5
    gate.set()
    deadline = time.monotonic() + 5
    while calls.abandoned and time.monotonic() < deadline:
        time.sleep(0.01)
    assert calls.run(lambda _deadline: 7, Seconds(5)) == 7


def test_a_call_given_up_before_its_effect_does_not_have_it() -> None:
    calls, gate, effects, ended = BoundedCalls("calls"), threading.Event(), [], threading.Event()

    def late(deadline: Deadline) -> None:
        gate.wait()
        try:
            deadline.check()
            effects.append("started")
        finally:
            ended.set()

    with pytest.raises(HypervisorUnreachable):
        calls.run(late, Seconds(0.05))
    gate.set()
    assert ended.wait(5)
    assert effects == []


def test_an_error_of_ours_is_carried_over_whole() -> None:
    def wrong(_deadline: Deadline) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        BoundedCalls("calls").run(wrong, Seconds(5))


# --- one that ends while it is asked about ---


def invalid() -> libvirt.libvirtError:
    """What libvirtd says of a guest that has just been migrated away; the test driver forgets a domain at once."""
    error = libvirt.libvirtError("transient domains do not have any persistent config")
    error.err = (libvirt.VIR_ERR_OPERATION_INVALID, libvirt.VIR_FROM_QEMU, error.args[0], 2, None, None, None, 0, 0)
    return error


@pytest.fixture
def ends_when_asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of domains that end right before their metadata are read; libvirt still finds them for a moment."""
    ending: list[str] = []
    read = libvirt.virDomain.metadata

    def ended_since(domain: libvirt.virDomain, *asked: Any) -> str:
        if domain.name() not in ending:
            return str(read(domain, *asked))
        domain.destroy()
        raise invalid()

    monkeypatch.setattr(libvirt.virDomain, "metadata", ended_since)
    return ending


def test_a_domain_that_ends_while_all_are_listed_is_left_out_and_no_other(
    hypervisor: LibvirtHypervisor, vm: VmId, boot: BootFilesOnDisk, ends_when_asked: list[str]
) -> None:
    gone = VmId(f"gone{next(numbers)}")
    for each in (vm, gone):
        hypervisor.create(each, xml(each), Generation(1))
    ends_when_asked.append(gone)
    second = LibvirtHypervisor(URI, boot)  # it remembers no marks yet
    try:
        assert states(second)[vm] == (Sighting.RUNNING, Generation(1))
        assert gone not in states(second)
    finally:
        second.close()


def migration_of(vm: VmId) -> Migration:
    there = Destination(host=HostId("h2"), incarnation=Incarnation("i2"), generation=Generation(2))
    return Migration(vm=vm, generation=Generation(1), to=there, downtime_s=Seconds(0.3), bound_s=Seconds(60.0))


def test_a_guest_that_is_gone_while_its_move_is_looked_after_is_no_refusal(
    hypervisor: LibvirtHypervisor, vm: VmId, ends_when_asked: list[str]
) -> None:
    hypervisor.create(vm, xml(vm), Generation(1))
    ends_when_asked.append(vm)
    departed = hypervisor.migrate(migration_of(vm), lambda: None, lambda _progress: Advice())
    assert departed.how is Departure.ENDED, "nobody said that it was migrated"


def test_a_question_that_is_refused_does_not_say_that_the_move_was(
    hypervisor: LibvirtHypervisor, vm: VmId, monkeypatch: pytest.MonkeyPatch
) -> None:
    hypervisor.create(vm, xml(vm), Generation(1))

    def broken(_domain: libvirt.virDomain, *_asked: Any) -> str:
        raise invalid()  # although it runs

    monkeypatch.setattr(libvirt.virDomain, "metadata", broken)
    with pytest.raises(HypervisorUnreachable, match="persistent config"):
        hypervisor.migrate(migration_of(vm), lambda: None, lambda _progress: Advice())


def test_a_question_that_is_invalid_for_one_that_runs_is_no_end(hypervisor: LibvirtHypervisor, vm: VmId) -> None:
    hypervisor.create(vm, xml(vm), Generation(1))
    other = libvirt.open(URI)
    domain = other.lookupByName(vm)
    assert not has_ended(invalid(), domain)
    hypervisor.destroy(vm)
    assert has_ended(invalid(), domain)
    other.close()
