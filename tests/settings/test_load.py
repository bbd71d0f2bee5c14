"""What a well file comes to: values, defaults, roles; and that no secret is ever among them."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
import pickle
import shutil
from pathlib import Path

import pytest

from fangnetz.core.errors import SettingsError
from fangnetz.core.model import VmWish
from fangnetz.core.policy import PROFILES, Fallback, Policy, RankBy
from fangnetz.core.units import ControllerId, DeviceName, HostId, VmId
from fangnetz.settings import (
    DRIVERS,
    Login,
    RedisSettings,
    Secret,
    check_settings,
    inspect_settings,
    load_settings,
    settings_as_tree,
)
from fangnetz.settings.schema import SHAPES, ClusterShape, Shape, ShortVmShape, XmlVmShape

from .conftest import SECRET, ClusterFile


def test_the_shipped_example_is_well(example: Path) -> None:
    found = inspect_settings(example)
    assert (found.faults, found.warnings) == ((), ())


def test_the_shipped_example_says_every_policy_key_with_its_default(example: Path) -> None:
    assert load_settings(example).policy == Policy()
    text = example.read_text().split("\npolicy:")[1]
    missing = [field.name for field in dataclasses.fields(Policy) if f"\n  {field.name.rstrip('_')}:" not in text]
    assert missing == []


def test_the_shipped_example_shows_every_key_there_is(example: Path) -> None:
    text = example.read_text()
    shapes: list[type[Shape]] = [*SHAPES.values(), XmlVmShape, ShortVmShape, ClusterShape]
    keys = {field.alias or name for shape in shapes for name, field in shape.model_fields.items()}
    assert sorted(key for key in keys if f"{key}:" not in text) == ["block"]
    assert "block" in text


def test_values_and_defaults_arrive(cluster: ClusterFile) -> None:
    settings = load_settings(cluster.path)
    assert settings.cluster == "demo"
    assert settings.controllers[ControllerId("c1")].address == "10.0.0.3"
    assert settings.flower is None
    assert settings.references == ()
    host = settings.hosts[HostId("host1")]
    assert (host.spec.id, host.spec.cpus, host.spec.memory_mib) == ("host1", 4, 4096)
    assert (host.libvirt_uri, host.libvirt_port, host.bmc_guid_command) == ("qemu:///system", 16509, ())
    assert host.spec.fencing == ((DeviceName("ipmi"),),)
    device = host.devices[DeviceName("ipmi")]
    assert (device.driver, device.address, device.port, device.username) == ("ipmi", "10.0.2.11", 623, "admin")
    assert device.secret is not None
    assert device.secret.read() == SECRET
    assert host.spec.zone == ""
    assert settings.policy == Policy()


def test_a_host_has_the_zone_its_file_says_and_shows_it(cluster: ClusterFile) -> None:
    cluster.mend("memory_mib: 4096", "memory_mib: 4096\n    zone: rack-7")
    settings = load_settings(cluster.path)
    zones = [host.spec.zone for host in settings.hosts.values()]
    assert zones.count("rack-7") == 1
    assert set(zones) == {"rack-7", ""}


def test_what_hosts_are_ranked_by_is_read(cluster: ClusterFile) -> None:
    cluster.mend("profile: default", "rank_by: measured")
    assert load_settings(cluster.path).policy.rank_by is RankBy.MEASURED


def test_both_forms_of_a_vm_become_definitions(cluster: ClusterFile) -> None:
    vms = load_settings(cluster.path).vms
    web1, db1 = vms[VmId("web1")], vms[VmId("db1")]
    assert web1.xml == (cluster.path.parent / "vms" / "web1.xml").read_text()
    assert (web1.spec.memory_mib, web1.spec.cpus, web1.source, web1.wish) == (2048, 2, "file", VmWish.RUNNING)
    assert (db1.spec.id, db1.spec.memory_mib, db1.spec.cpus) == ("db1", 256, 1)
    for vm in (web1, db1):
        assert vm.spec.digest == hashlib.sha256(vm.xml.encode()).hexdigest()


def test_a_vm_says_what_an_evacuation_does_about_it_or_nothing(cluster: ClusterFile) -> None:
    cluster.mend("memory_mib: 256", "memory_mib: 256\n    evacuate_fallback: stop")
    cluster.mend("profile: default", "unmovable: stop\n  evacuate_fallback: relocate")
    settings = load_settings(cluster.path)
    assert (settings.policy.unmovable, settings.policy.evacuate_fallback) == (Fallback.STOP, Fallback.RELOCATE)
    assert [settings.vms[VmId(vm)].spec.fallback for vm in ("db1", "web1")] == [Fallback.STOP, None]


def test_equal_settings_give_equal_definitions(cluster: ClusterFile) -> None:
    assert load_settings(cluster.path) == load_settings(cluster.path)


def test_levels_keep_their_order_and_their_devices(cluster: ClusterFile) -> None:
    second = "        - {name: psu2, driver: ipmi, address: 10.0.2.21, password_env: FN_TEST_REDIS}\n"
    third = "      - - {name: far, driver: ipmi, address: 10.0.2.31, port: 6230, password_env: FN_TEST_REDIS}\n"
    cluster.mend("  host2:\n", second + third + "  host2:\n")
    host = load_settings(cluster.path).hosts[HostId("host1")]
    assert host.spec.fencing == (("ipmi", "psu2"), ("far",))
    assert host.devices[DeviceName("far")].port == 6230


def test_every_profile_is_safe_and_loads(cluster: ClusterFile) -> None:
    for profile in PROFILES:
        cluster.write(cluster.path.read_text().split("policy:")[0] + f"policy: {{profile: {profile}}}\n")
        policy = load_settings(cluster.path).policy
        assert all(getattr(policy, key) == value for key, value in PROFILES[profile].items())


@pytest.mark.parametrize(("key", "value"), [("isolated", "leave"), ("return", "manual"), ("after_fence", "stay_off")])
def test_a_choice_arrives(cluster: ClusterFile, key: str, value: str) -> None:
    cluster.mend("profile: default", f"{key}: {value}")
    policy = load_settings(cluster.path).policy
    assert str(getattr(policy, "return_" if key == "return" else key)) == value


def test_load_raises_one_error_with_every_fault_on_its_line(cluster: ClusterFile) -> None:
    cluster.mend("cpus: 4", "cpus: 0")
    cluster.mend("cluster: demo", "cluster: DEMO")
    with pytest.raises(SettingsError) as raised:
        load_settings(cluster.path)
    assert str(raised.value).splitlines() == [str(fault) for fault in cluster.faults()]
    assert str(raised.value).startswith(f"{cluster.path}:1: cluster: DEMO: must be ")


def test_a_host_needs_neither_secrets_nor_vm_files(cluster: ClusterFile, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.rmtree(cluster.path.parent / "secrets")
    shutil.rmtree(cluster.path.parent / "vms")
    monkeypatch.delenv("FN_TEST_REDIS")
    assert len(check_settings(cluster.path)) == 4
    settings = load_settings(cluster.path, role="host")
    assert settings.vms == {}
    assert set(settings.hosts) == {"host1", "host2"}
    with pytest.raises(SettingsError, match="FN_TEST_REDIS"):
        settings.redis.broker_url("host")


def test_a_host_still_judges_everything_else(cluster: ClusterFile) -> None:
    cluster.mend("cpus: 4", "cpus: 0")
    assert [fault.key for fault in check_settings(cluster.path, role="host")] == ["hosts.host1.cpus"]


def test_a_secret_is_read_when_it_is_needed(cluster: ClusterFile) -> None:
    secret = load_settings(cluster.path).hosts[HostId("host1")].devices[DeviceName("ipmi")].secret
    assert secret is not None
    file = cluster.path.parent / "secrets" / "ipmi"
    file.write_text("changed\n")
    assert secret.read() == "changed"
    file.unlink()
    with pytest.raises(SettingsError, match="secrets/ipmi"):
        secret.read()


def test_a_secret_is_found_from_any_folder(cluster: ClusterFile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(cluster.path.parent)
    settings = load_settings(Path(cluster.path.name))
    monkeypatch.chdir("/")
    secret = settings.hosts[HostId("host1")].devices[DeviceName("ipmi")].secret
    assert secret is not None
    assert secret.read() == SECRET


def test_the_redis_url_gets_its_secret_only_on_demand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FN_TEST_REDIS", "a/b:c@d")
    redis = RedisSettings(url="redis://h:6379/0", login=Login(username="me", secret=Secret(env="FN_TEST_REDIS")))
    assert redis.broker_url("host") == "redis://me:a%2Fb%3Ac%40d@h:6379/0"
    assert "a/b" not in repr(redis)
    assert "%2F" not in repr(redis)
    assert RedisSettings(url="redis://h:6379/0").broker_url("host") == "redis://h:6379/0"


def test_no_form_of_the_settings_holds_a_secret(cluster: ClusterFile, example: Path) -> None:
    for path in (cluster.path, example):
        settings = load_settings(path)
        settings.redis.broker_url("controller")  # reading it leaves nothing behind
        forms = [
            repr(settings),
            str(settings),
            json.dumps(settings_as_tree(settings)),
            json.dumps(dataclasses.asdict(settings), default=str),
            pickle.dumps(settings).decode("latin-1"),
            repr(copy.deepcopy(settings)),
        ]
        assert all(SECRET not in form for form in forms)
        assert all("demo" in form for form in forms)


def test_a_warning_stops_nothing(cluster: ClusterFile) -> None:
    xml = cluster.path.parent / "vms" / "web1.xml"
    xml.write_text(xml.read_text().replace("<cpu mode='host-model'/>", "<cpu mode='host-passthrough'/>"))
    found = inspect_settings(cluster.path)
    assert found.faults == ()
    assert found.settings is not None
    assert [(w.key, w.line) for w in found.warnings] == [("vms.web1.xml_file", cluster.line_of("web1.xml"))]


@pytest.mark.parametrize(("second", "warned"), [("host1", True), ("host2", False), ("", False)])
def test_controllers_that_all_stand_on_one_host_are_warned_of(cluster: ClusterFile, second: str, warned: bool) -> None:
    place = f", host: {second}" if second else ""
    cluster.mend(
        "  c1: {address: 10.0.0.3}",
        f"  c1: {{address: 10.0.0.3, host: host1}}\n  c2: {{address: 10.0.0.4{place}}}",
    )
    found = inspect_settings(cluster.path)
    assert found.settings is not None
    assert [w.key for w in found.warnings] == (["controllers.c2.host"] if warned else [])


def test_a_host_knows_the_controllers_that_run_on_it(cluster: ClusterFile) -> None:
    cluster.mend("  c1: {address: 10.0.0.3}", "  c1: {address: 10.0.0.3, host: host1}\n  c2: {address: 10.0.0.4}")
    settings = load_settings(cluster.path)
    assert {host: it.spec.controllers for host, it in settings.hosts.items()} == {"host1": ("c1",), "host2": ()}
    assert settings.controllers[ControllerId("c1")].host == "host1"
    assert settings_as_tree(settings)["controllers"] == {
        "c1": {"address": "10.0.0.3", "host": "host1"},
        "c2": {"address": "10.0.0.4", "host": None},
    }


@pytest.mark.parametrize("driver", DRIVERS)
def test_every_driver_is_accepted(cluster: ClusterFile, driver: str) -> None:
    cluster.mend("driver: ipmi", f"driver: {driver}")
    assert cluster.faults() == ()


USERS = """\
  users:
    controller: {username: c, password_env: FN_TEST_REDIS}
    host: {username: h, password_file: secrets/redis-host}
    flower: {username: f, password_file: secrets/redis-flower}
    operator: {username: o, password_file: secrets/redis-operator}
"""


def test_each_role_logs_in_as_itself_and_needs_nobody_elses_password(cluster: ClusterFile) -> None:
    cluster.mend("  password_env: FN_TEST_REDIS\n", USERS)
    flower = cluster.path.parent / "secrets" / "redis-flower"
    assert cluster.faults() == (), "a controller reads its own password only"
    redis = load_settings(cluster.path).redis
    assert redis.broker_url("controller") == f"redis://c:{SECRET}@10.0.0.2:6379/0"
    for other in ("host", "flower", "operator"):
        with pytest.raises(SettingsError, match=f"redis-{other}"):
            redis.broker_url(other)  # type: ignore[arg-type]
    assert [fault.key for fault in check_settings(cluster.path, "flower")] == ["redis.users.flower.password_file"]
    flower.write_text("fl0wer\n")
    flower.chmod(0o600)
    assert load_settings(cluster.path, "flower").redis.broker_url("flower") == "redis://f:fl0wer@10.0.0.2:6379/0"
    assert check_settings(cluster.path, "host") == ()


def test_who_is_no_user_uses_the_login_for_all(cluster: ClusterFile) -> None:
    cluster.mend("6379/0\n", "6379/0\n  username: all\n  users: {host: {username: h, password_file: x}}\n")
    redis = load_settings(cluster.path).redis
    assert redis.broker_url("operator") == redis.broker_url("flower") == f"redis://all:{SECRET}@10.0.0.2:6379/0"


def test_every_sentinel_is_in_the_brokers_url(cluster: ClusterFile) -> None:
    cluster.mend(
        "  url: redis://10.0.0.2:6379/0\n",
        "  sentinels: [10.0.0.5, 'redis-b:26380', '[fd00::5]:26379']\n  master: fangnetz\n"
        "  sentinel_login: {password_env: FN_TEST_REDIS}\n  username: u\n",
    )
    redis = load_settings(cluster.path).redis
    assert redis.sentinels == (("10.0.0.5", 26379), ("redis-b", 26380), ("fd00::5", 26379))
    assert redis.broker_url("host") == ";".join(
        f"sentinel://u:{SECRET}@{node}/0" for node in ("10.0.0.5:26379", "redis-b:26380", "[fd00::5]:26379")
    )
    assert redis.sentinel_login.password() == SECRET
    assert "fangnetz" in redis.place
    assert SECRET not in redis.place
    assert redis.database == 0
