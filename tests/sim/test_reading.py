"""A scenario file is read strictly: one sentence with its line for what is wrong, and nothing is ignored."""

from __future__ import annotations

from pathlib import Path

import pytest

from fangnetz.sim.stories.read import ScenarioRefused, read_story
from fangnetz.sim.stories.words import NOT_BUILT_KEYS
from fangnetz.sim.stories.write import text_of

SMALL = """name: small
hosts: {host1: {}, host2: {}}
vms: {web1: {host: host1}}
timeline:
  - {at: 10, power_off: host1}
"""


def read(tmp_path: Path, text: str) -> object:
    file = tmp_path / "story.yaml"
    file.write_text(text)
    return read_story(file)


@pytest.mark.parametrize(("kind", "key"), [(kind, key) for kind, keys in NOT_BUILT_KEYS.items() for key in keys])
def test_a_key_the_product_cannot_do_yet_is_refused_by_name(tmp_path: Path, kind: str, key: str) -> None:
    text = {
        "host": SMALL.replace("host2: {}", f"host2: {{{key}: 1}}"),
        "vm": SMALL.replace("{host: host1}", f"{{host: host1, {key}: 1}}"),
        "world": SMALL + f"world: {{{key}: 1}}\n",
        "policy": SMALL + f"policy: {{{key}: 1}}\n",
    }[kind]
    with pytest.raises(ScenarioRefused, match=f"{key}.*not built yet"):
        read(tmp_path, text)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("power_off: host1", "power_of: host1", "did you mean power_off"),
        ("power_off: host1", "power_off: host9", "must be a host"),
        ("at: 10", "at: soon", "must be a number"),
        ("web1: {host: host1}", "web1: {}", "must be a host"),
        ("web1: {host: host1}", "web1: {host: host1, memory: 3}", "not a known key"),
        ("web1: {host: host1}", "host1: {host: host1}", "is called as a host"),
        ("host2: {}", "host2: {fencing: [pdu-a]}", "not built yet"),
        ("{at: 10, power_off: host1}", "{at: 10, redis: {state: failover}}", "replicas"),
        ("{at: 10, power_off: host1}", "{at: 10, redis: {state: sideways}}", "one of"),
        ("name: small", "name: small\nexpect: {placement: {web2: host1}}", "no VM of this story"),
        ("name: small", "name: small\npolicy: {misses: 1}", "misses"),
        ("name: small", "name: small\npolicy: {rank_by: load}", "configured, measured"),
        ("host2: {}", "host2: {zone: [a]}", "must be a word"),
        ("{at: 10, power_off: host1}", "{at: 10, load: {vm: web2, cpus_used: 1}}", "must be a VM"),
        ("{at: 10, power_off: host1}", "{at: 10, load: {vm: web1}}", "cpus_used, memory_used_mib"),
        ("{at: 10, power_off: host1}", "{at: 10, load: {vm: web1, cpus_used: -1}}", "must be a number"),
        ("{at: 10, power_off: host1}", "{at: 10, roll: {hosts: []}}", "at least one host"),
        ("{at: 10, power_off: host1}", "{at: 10, roll: {hosts: [host1, host1]}}", "each once"),
        ("{at: 10, power_off: host1}", "{at: 10, roll: {hosts: [host1], fails_on: host2}}", "rolled over"),
        ("{at: 10, power_off: host1}", "{at: 10, roll: {resume: go_on, hosts: [host1]}}", "as the roll was begun"),
        ("{at: 10, power_off: host1}", "{at: 10, roll: {resume: true}}", "must be one of"),
        ("{at: 10, power_off: host1}", "{at: 10, kill_roll: host1}", "must be true"),
        ("{at: 10, power_off: host1}", "{at: 10, load: {vm: web1, cpus: 1}}", "did you mean cpus_used"),
        ("name: small", "name: small\nname: twice", "stands twice"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence_with_its_place(tmp_path: Path, old: str, new: str, said: str) -> None:
    with pytest.raises(ScenarioRefused) as refused:
        read(tmp_path, SMALL.replace(old, new, 1))
    assert said in str(refused.value)
    assert "story.yaml:" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_story_written_back_reads_as_the_same_story(tmp_path: Path) -> None:
    first = read(tmp_path, SMALL)
    assert read(tmp_path, text_of(first.data)) == first  # type: ignore[attr-defined]
