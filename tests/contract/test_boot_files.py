"""Files of one boot: a promise never shrinks and is there for every process of the host; one holder of a VM's lock."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from fangnetz.core.model import Leaving, Release
from fangnetz.core.units import Generation, Seconds, VmId
from fangnetz.ports import BootFiles
from tests.contract.boots import BootSubject

Open = Callable[[], BootFiles]
WEB, DB = VmId("web"), VmId("db")


def test_every_process_of_a_boot_knows_the_same_incarnation(open_boot_files: Open) -> None:
    first = open_boot_files()
    assert first.incarnation
    assert open_boot_files().incarnation == first.incarnation == first.incarnation


def test_nothing_is_released_at_first(open_boot_files: Open) -> None:
    files = open_boot_files()
    assert files.released(WEB) == 0
    assert files.releases() == ()


def test_a_promise_is_there_for_the_next_process_and_about_one_vm(open_boot_files: Open) -> None:
    open_boot_files().release(WEB, Generation(7))
    files = open_boot_files()
    assert (files.released(WEB), files.released(DB)) == (7, 0)
    assert files.releases() == (Release(vm=WEB, generation=Generation(7)),)


def test_a_promise_says_which_copy_the_vm_left_for_and_a_later_one_of_that_number_changes_nothing(
    open_boot_files: Open,
) -> None:
    open_boot_files().release(WEB, Generation(7), Generation(9))
    open_boot_files().release(WEB, Generation(7))
    left = Release(vm=WEB, generation=Generation(7), left_for=Generation(9))
    assert open_boot_files().releases() == (left,)
    open_boot_files().release(WEB, Generation(11))
    assert open_boot_files().releases() == (Release(vm=WEB, generation=Generation(11)),)


def test_a_promise_once_made_is_never_said_to_be_of_a_migration_afterwards(open_boot_files: Open) -> None:
    open_boot_files().release(WEB, Generation(7))
    open_boot_files().release(WEB, Generation(7), Generation(9))
    assert open_boot_files().releases() == (Release(vm=WEB, generation=Generation(7)),)


@pytest.mark.parametrize(("order", "left"), [((7, 5), 7), ((5, 7), 7), ((7, 7), 7)])
def test_a_promise_never_shrinks(open_boot_files: Open, order: tuple[int, int], left: int) -> None:
    for generation in order:
        open_boot_files().release(WEB, Generation(generation))
    assert open_boot_files().released(WEB) == left


def test_an_unanswered_start_is_there_for_the_next_process_until_it_is_forgotten(open_boot_files: Open) -> None:
    note = open_boot_files().note_start(WEB, Generation(7))
    files = open_boot_files()
    assert [(start.vm, start.note, start.damage) for start in files.unanswered_starts()] == [(WEB, note, "")]
    files.forget_start(DB, note)
    assert len(files.unanswered_starts()) == 1
    files.forget_start(WEB, note)
    files.forget_start(WEB, note)
    assert open_boot_files().unanswered_starts() == ()


def test_forgetting_one_start_leaves_a_later_one_of_the_same_vm(open_boot_files: Open) -> None:
    first = open_boot_files().note_start(WEB, Generation(7))
    second = open_boot_files().note_start(WEB, Generation(7))
    assert first != second
    open_boot_files().forget_start(WEB, first)
    assert [start.note for start in open_boot_files().unanswered_starts()] == [second]


@pytest.mark.parametrize("name", ["promises", "starts"])
def test_a_vm_may_be_called_as_a_lock_of_ours(open_boot_files: Open, name: str) -> None:
    files, vm = open_boot_files(), VmId(name)
    with files.lock(vm, Seconds(1.0)):
        files.forget_start(vm, files.note_start(vm, Generation(7)))
        files.release(vm, Generation(7))
    assert files.released(vm) == 7


def test_a_vms_lock_has_one_holder_and_the_next_one_waits_only_as_long_as_it_said(open_boot_files: Open) -> None:
    one, two = open_boot_files(), open_boot_files()
    with one.lock(WEB, Seconds(1.0)):
        for files in (one, two):
            with pytest.raises(TimeoutError), files.lock(WEB, Seconds(0.05)):
                pytest.fail("two hold it")
        with two.lock(DB, Seconds(0.5)):
            pass
    with two.lock(WEB, Seconds(0.5)):
        pass


def test_a_lock_is_free_again_after_an_error(open_boot_files: Open) -> None:
    files = open_boot_files()
    with pytest.raises(ZeroDivisionError), files.lock(WEB, Seconds(1.0)):
        raise ZeroDivisionError
    with open_boot_files().lock(WEB, Seconds(0.5)):
        pass


def test_whoever_waits_gets_the_lock_when_it_is_free(boot: BootSubject) -> None:
    def wait(files: BootFiles) -> None:
        with files.lock(WEB, Seconds(10.0)):
            pass

    with boot.open().lock(WEB, Seconds(1.0)):
        ended = boot.beside(wait)
        assert not ended(0.1)
    assert ended(10)


def test_a_killed_process_holds_no_lock_any_more_and_what_it_wrote_stays(boot: BootSubject) -> None:
    boot.die_holding(WEB, Generation(7))
    files = boot.open()
    with files.lock(WEB, Seconds(0.5)):
        assert files.released(WEB) == 7
        assert [(start.vm, start.generation) for start in files.unanswered_starts()] == [(WEB, 8)]


def test_a_later_start_of_a_vm_takes_the_place_of_the_note_before(open_boot_files: Open) -> None:
    """Only one start of a VM is ever under way: whoever sends one has made sure that none before it may still come."""
    open_boot_files().note_start(WEB, Generation(7))
    note = open_boot_files().note_start(WEB, Generation(8))
    open_boot_files().note_start(DB, Generation(9))
    starts = open_boot_files().unanswered_starts()
    assert {(start.vm, start.generation) for start in starts} == {(WEB, 8), (DB, 9)}
    assert note in {start.note for start in starts}


def test_that_a_host_goes_down_in_order_is_known_to_its_next_process_until_it_is_taken_back(
    open_boot_files: Open,
) -> None:
    assert open_boot_files().leaving() is Leaving.NO
    for how in (Leaving.SHUTDOWN, Leaving.REBOOT, Leaving.NO, Leaving.NO):
        open_boot_files().leave(how)
        assert open_boot_files().leaving() is how
