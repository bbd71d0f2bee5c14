"""The store's clock: one for all, and it never runs backwards, whatever is done to the machine's."""

from __future__ import annotations

import pytest

from fangnetz.core.operations import Step, StepKind
from fangnetz.core.units import Seconds
from fangnetz.ports import Claim, LedgerEntry
from tests.contract.subjects import C2, H1, HOUR, Cluster, StoreSubject
from tests.core.world import beat

FENCE = Step(key="fence", kind=StepKind.FENCE)


def test_later_is_later_over_every_step_of_the_machines_clock(subject: StoreSubject) -> None:
    seen = [subject.store.now()]
    for span in (HOUR, -HOUR, -HOUR, 0.4, -0.4, 2 * HOUR, -5 * HOUR):
        subject.step_clock(Seconds(span))
        seen += [subject.store.now(), subject.another().view({}, None).now, subject.store.now()]
    assert seen == sorted(seen)


def test_a_lease_taken_before_the_clock_was_set_back_lasts_no_longer_for_it(cluster: Cluster) -> None:
    cluster.open(FENCE)
    cluster.subject.step_clock(HOUR)
    cluster.claim("fence", token="lost", lease=0.2)
    cluster.subject.step_clock(Seconds(-HOUR))
    assert cluster.refused("fence", token="next") == "leased"
    cluster.subject.pass_time(Seconds(0.25))
    assert isinstance(cluster.try_claim("fence", token="next"), Claim)


def test_the_control_lease_passes_on_after_the_clock_was_set_back(cluster: Cluster) -> None:
    cluster.subject.step_clock(HOUR)
    cluster.lead(ttl=Seconds(0.2))
    cluster.subject.step_clock(Seconds(-HOUR))
    assert cluster.store.take_lease(C2, Seconds(0.2)) is None
    cluster.subject.pass_time(Seconds(0.25))
    assert cluster.store.take_lease(C2, Seconds(0.2)) is not None


def test_a_report_after_the_clock_was_set_back_is_newer_than_those_before(cluster: Cluster) -> None:
    cluster.subject.step_clock(HOUR)
    before = cluster.store.put_heartbeat(beat(H1, 1.0))
    cluster.subject.step_clock(Seconds(-HOUR))
    assert cluster.store.put_heartbeat(beat(H1, 2.0)) > before


def test_a_new_life_goes_on_after_what_its_controller_has_read(subject: StoreSubject) -> None:
    subject.step_clock(HOUR)
    subject.store.meet()
    before = subject.store.view({}, None).now
    subject.step_clock(Seconds(-HOUR))
    subject.wipe()
    subject.another().meet()  # one that has read nothing yet
    assert subject.store.now() < before
    subject.wipe()
    assert subject.store.meet().since > before
    assert subject.store.now() > before


def test_a_new_life_goes_on_after_every_document_that_is_put_back(subject: StoreSubject) -> None:
    subject.step_clock(HOUR)
    entry = LedgerEntry(key="host/h1", version=int(subject.store.now() * 1_000_000), body="{}")
    subject.step_clock(Seconds(-HOUR))
    subject.wipe()
    subject.another().meet()
    subject.another().put_ledger([entry])
    assert subject.store.now() * 1_000_000 > entry.version


@pytest.mark.parametrize("field", ["ahead", "latest"])
@pytest.mark.parametrize("value", ["9e18", "soon", "-5", "99999999999999999999", "9007199254740993"])
def test_nonsense_about_the_clock_counts_as_nothing(subject: StoreSubject, field: str, value: str) -> None:
    before = subject.store.now()
    subject.spoil_clock(field, value)
    seen = [subject.store.now(), subject.store.view({}, None).now, subject.store.now()]
    assert seen == sorted(set(seen))
    assert before < seen[0] < before + HOUR
