"""The pages say what the code says: policy keys with their values, links, verbs that exist, a clean lock."""

from __future__ import annotations

import re
from dataclasses import fields, replace
from pathlib import Path

import pytest

from fangnetz.core.policy import PROFILES, Policy

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "config").rglob("*.md")])


def timing_rows() -> dict[str, tuple[float, float]]:
    """Key -> (default, fast) of the settings table."""
    page = (ROOT / "docs" / "timing.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| ([\d.]+) \| ([\d.]+) \|", page, re.MULTILINE)
    return {key: (float(default), float(fast)) for key, default, fast in rows}


def test_the_timing_page_has_every_span_and_count_of_the_policy_with_its_values() -> None:
    default = Policy()
    fast = replace(default, **PROFILES["fast"])  # type: ignore[arg-type]  # a table of overrides is untyped
    timed = [f.name for f in fields(Policy) if f.name.endswith("_s") or f.name in timing_rows()]
    assert len(timed) > 10
    expected = {name: (float(getattr(default, name)), float(getattr(fast, name))) for name in timed}
    assert timing_rows() == expected


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_every_make_verb_the_pages_name_exists() -> None:
    makefile = (ROOT / "Makefile").read_text()
    verbs = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    for page in PAGES:
        for verb in re.findall(r"(?:^|`|=1 )make ([a-z-]+)", page.read_text(), re.MULTILINE):
            assert verb in verbs, f"{page.name}: make {verb}"


def test_the_lock_holds_exact_versions_and_nothing_else() -> None:
    lines = [
        line for line in (ROOT / "requirements.lock").read_text().splitlines() if line and not line.startswith("#")
    ]
    assert len(lines) > 30
    for line in lines:
        assert re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.!+]+", line), line
