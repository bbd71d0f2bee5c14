"""How often a VM that ends by itself is started again, where, and when that is given up."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fangnetz.core.policy import Policy
from fangnetz.core.retries import NO_RETRIES, Retries, as_tree, ends_per_host, gives_up, leaves


def course(retries: Retries, policy: Policy) -> list[str]:
    """What follows each end in a row, up to the last one."""
    told: list[str] = []
    while not told or told[-1] != "failed":
        ends = len(told) + 1
        given_up = gives_up(retries, ends, policy)
        told.append("failed" if given_up else "elsewhere" if leaves(retries, ends, policy) else "there")
    return told


def test_what_follows_each_end() -> None:
    policy = Policy()
    assert course(NO_RETRIES, policy) == ["there"] * (policy.start_attempts_max - 1) + ["failed"]
    assert course(Retries(restarts=0), policy) == ["failed"]
    assert course(Retries(restarts=1, relocations=1), policy) == ["there", "elsewhere", "there", "failed"]
    assert course(Retries(restarts=0, relocations=2), policy) == ["elsewhere", "elsewhere", "failed"]


@given(st.none() | st.integers(0, 5), st.none() | st.integers(0, 5))
def test_it_leaves_as_often_as_is_said_and_is_given_up_in_the_end(
    restarts: int | None, relocations: int | None
) -> None:
    retries, policy = Retries(restarts=restarts, relocations=relocations), Policy()
    told = course(retries, policy)
    assert told.count("elsewhere") == (relocations or 0)
    assert len(told) == ends_per_host(retries, policy) * ((relocations or 0) + 1)
    assert not leaves(retries, 0, policy)


def test_what_is_not_said_is_not_told() -> None:
    assert as_tree(NO_RETRIES) == {}
    assert as_tree(Retries(restarts=0)) == {"max_restarts": 0}
