"""One BMC, many spellings: in-band and LAN readings of the same BMC are equal, others never."""

from __future__ import annotations

import time
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fangnetz.adapters.bmc_guid import byte_orders, first_guid, read_in_band, same_guid
from fangnetz.core.units import Seconds

WIRE = "a123456789abcdef0123456789abcdef"
IPMITOOL = """System GUID  : efcdab89-6745-2301-efcd-ab89674523a1
GUID Encoding : IPMI
"""
DMIDECODE = "\tUUID: 674523a1-ab89-efcd-0123-456789abcdef\n"
RAW = " a1 23 45 67 89 ab cd ef 01 23 45 67 89 ab cd ef\n"


@pytest.mark.parametrize("text", [IPMITOOL, DMIDECODE, RAW, WIRE.upper(), str(uuid.UUID(WIRE))])
def test_every_tools_spelling_of_one_bmc_is_the_same(text: str) -> None:
    guid = first_guid(text)
    assert same_guid(guid, WIRE)
    assert WIRE in read_in_band(("printf", "%s", text), Seconds(5))


@given(st.uuids(version=4), st.uuids(version=4))
def test_two_bmcs_are_never_the_same(one: uuid.UUID, other: uuid.UUID) -> None:
    if one != other:
        assert not same_guid(one.hex, other.hex)


@given(st.uuids(version=4))
def test_sameness_does_not_depend_on_who_is_asked(guid: uuid.UUID) -> None:
    for spelling in byte_orders(guid.hex):
        assert same_guid(spelling, guid.hex)
        assert same_guid(guid.hex, spelling)


@pytest.mark.parametrize(
    "default", ["0" * 32, "f" * 32, "03000200-0400-0500-0006-000700080009", "00020003000400050006000700080009"]
)
def test_a_factory_default_proves_nothing(default: str) -> None:
    assert not same_guid(default, default)
    assert read_in_band(("printf", "%s", default), Seconds(5)) == ()


@pytest.mark.parametrize("text", ["", "no guid here", WIRE[:-1], "g" * 32])
def test_no_guid_is_no_answer(text: str) -> None:
    assert first_guid(text) == ""
    assert not same_guid(text, text)


def test_a_failing_missing_or_hanging_command_is_not_an_answer() -> None:
    assert read_in_band(("sh", "-c", f"echo {WIRE}; exit 1"), Seconds(5)) == ()
    assert read_in_band(("no-such-command-anywhere",), Seconds(5)) == ()
    began = time.monotonic()
    assert read_in_band(("sh", "-c", f"echo {WIRE}; sleep 60"), Seconds(0.3)) == ()
    assert time.monotonic() - began < 10
