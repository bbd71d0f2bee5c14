"""Each rule of the cluster file, broken alone: it is the only fault, at its key and on its line."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fangnetz.core.policy import Compression
from fangnetz.settings import load_settings

from .conftest import SECRET, WELL, ClusterFile

IPMI1 = "hosts.host1.fencing[0][0]"
IPMI2 = "hosts.host2.fencing[0][0]"

# what it is about, words to replace, replacement, key at fault, words on the line at fault
BROKEN = [
    ("a bad cluster name", "cluster: demo", "cluster: Demo_1", "cluster", "Demo_1"),
    ("a number as name", "cluster: demo", "cluster: 7", "cluster", "cluster: 7"),
    ("a bad host name", "  host1:\n", "  Host 1:\n", "hosts.Host 1", "Host 1"),
    ("a bad controller name", "  c1:", "  -c1:", "controllers.-c1", "-c1"),
    ("a bad VM name", "  db1:\n", "  db/1:\n", "vms.db/1", "db/1"),
    ("an unknown key", "    cpus: 4\n    memory_mib: 4096", "    cpu: 4\n    cpus: 4\n    memory_mib: 4096",
     "hosts.host1.cpu", "cpu: 4"),
    ("an unknown section", "policy:", "polcy: {}\npolicy:", "polcy", "polcy"),
    ("text as number", "memory_mib: 4096", "memory_mib: lots", "hosts.host1.memory_mib", "lots"),
    ("a quoted number", "memory_mib: 4096", "memory_mib: '4096'", "hosts.host1.memory_mib", "'4096'"),
    ("a fraction", "memory_mib: 256", "memory_mib: 256.5", "vms.db1.memory_mib", "256.5"),
    ("a boolean as number", "memory_mib: 256", "memory_mib: true", "vms.db1.memory_mib", "true"),
    ("a negative number", "memory_mib: 256", "memory_mib: -256", "vms.db1.memory_mib", "-256"),
    ("a huge number", "memory_mib: 256", "memory_mib: " + "9" * 5000, "vms.db1.memory_mib", "999"),
    ("not a number", "profile: default", "tick_s: .nan", "policy.tick_s", ".nan"),
    ("infinity", "profile: default", "tick_s: 1e999", "policy.tick_s", "1e999"),
    ("a list for a group", "  c1: {address: 10.0.0.3}", "  c1: [10.0.0.3]", "controllers.c1", "c1"),
    ("text for a group", "  c1: {address: 10.0.0.3}", "  c1: 10.0.0.3", "controllers.c1", "c1"),
    ("a bad address", "address: 10.0.0.11", "address: 10.0.0.311", "hosts.host1.address", "311"),
    ("an address with a port", "address: 10.0.0.11", "address: '10.0.0.11:22'", "hosts.host1.address", ":22"),
    ("an address twice", "address: 10.0.0.12", "address: 10.0.0.11", "hosts.host2.address", "address: 10.0.0.11"),
    ("a BMC twice", "address: 10.0.2.12", "address: 10.0.2.11, port: 623", IPMI2 + ".address", "port: 623"),
    ("a BMC that is a host", "address: 10.0.2.12", "address: 10.0.0.11", IPMI2 + ".address", "- - {name"),
    ("an empty fence level",
     "      - - name: ipmi\n          driver", "      - []\n      - - name: ipmi\n          driver",
     "hosts.host1.fencing[0]", "- []"),
    ("an unknown driver", "driver: ipmi, ", "driver: impi, ", IPMI2 + ".driver", "impi"),
    ("no secret for the BMC", ", password_file: secrets/ipmi}", "}", IPMI2 + ".password_file", "- - {name"),
    ("two places for a secret",
     "password_env: FN_TEST_REDIS", "password_env: FN_TEST_REDIS\n  password_file: secrets/ipmi",
     "redis.password_env", "password_env"),
    ("a secret file that is missing", "          password_file: secrets/ipmi", "          password_file: secrets/none",
     IPMI1 + ".password_file", "secrets/none"),
    ("a secret file that is a folder", "          password_file: secrets/ipmi", "          password_file: ./secrets",
     IPMI1 + ".password_file", "./secrets"),
    ("a variable that is not set",
     "password_env: FN_TEST_REDIS", "password_env: FN_TEST_NONE", "redis.password_env", "NONE"),
    ("a password in the file", "          password_file: secrets/ipmi", f"          password: {SECRET}",
     IPMI1 + ".password", "password:"),
    ("a password in the URL", "redis://10.0.0.2", f"redis://:{SECRET}@10.0.0.2", "redis.url", "url"),
    ("a password in the URL's query", "6379/0", f"6379/0?password={SECRET}", "redis.url", "url"),
    ("a zone that is no name", "memory_mib: 4096", "memory_mib: 4096\n    zone: Rack 7", "hosts.host1.zone", "Rack 7"),
    ("ranked by nothing known", "profile: default", "rank_by: load", "policy.rank_by", "rank_by: load"),
    ("no Redis URL", "redis://10.0.0.2:6379/0", "http://10.0.0.2", "redis.url", "url"),
    ("a user without password", "redis:\n  url: redis://10.0.0.2:6379/0\n  password_env: FN_TEST_REDIS",
     "redis: # here\n  url: redis://10.0.0.2:6379/0\n  username: me", "redis.password_file", "redis: # here"),
    ("Redis nowhere", "redis:\n  url: redis://10.0.0.2:6379/0\n", "redis: # here\n", "redis.url", "redis: # here"),
    ("Redis in two ways", "6379/0\n", "6379/0\n  master: m\n  sentinels: [10.0.0.5:26379]\n",
     "redis.sentinels", "sentinels"),
    ("Sentinels without a master", "  url: redis://10.0.0.2:6379/0\n", "  sentinels: [10.0.0.5]\n",
     "redis.master", "redis:"),
    ("a master without Sentinels", "6379/0\n", "6379/0\n  master: m\n", "redis.master", "master"),
    ("no Sentinels", "  url: redis://10.0.0.2:6379/0\n", "  master: m\n  sentinels: []\n", "redis.sentinels", "[]"),
    ("a Sentinel's address", "  url: redis://10.0.0.2:6379/0\n", "  master: m\n  sentinels: ['10.0.0.5:x']\n",
     "redis.sentinels[0]", ":x"),
    ("a login for Sentinels without a password", "  url: redis://10.0.0.2:6379/0\n",
     "  master: m\n  sentinels: [10.0.0.5]\n  sentinel_login: {username: w}\n",
     "redis.sentinel_login.password_file", "sentinel_login"),
    ("a user of Redis nobody is", "6379/0\n", "6379/0\n  users: {hosts: {}}\n", "redis.users.hosts", "hosts: {}"),
    ("a user of Redis without a name", "6379/0\n", "6379/0\n  users: {host: {password_env: X}}\n",
     "redis.users.host.username", "users:"),
    ("a user of Redis without a password", "6379/0\n", "6379/0\n  users: {host: {username: h}}\n",
     "redis.users.host.password_file", "users:"),
    ("a blank in a user's name", "6379/0\n", "6379/0\n  users: {host: {username: 'a +@all', password_env: X}}\n",
     "redis.users.host.username", "users:"),
    ("two users of one name", "6379/0\n",
     "6379/0\n  users:\n    host: {username: a, password_env: X}\n    operator: {username: a, password_env: X}\n",
     "redis.users.operator.username", "operator"),
    ("a user who lacks", "6379/0\n  password_env: FN_TEST_REDIS\n",
     "6379/0\n  users: # here\n    host: {username: a, password_env: X}\n"
     "    controller: {username: b, password_env: FN_TEST_REDIS}\n", "redis.users.operator", "users: # here"),
    ("a controller's password that is not there", "6379/0\n",
     "6379/0\n  users: {controller: {username: c, password_env: FN_TEST_NONE}}\n",
     "redis.users.controller.password_env", "users:"),
    ("a controller on a host there is not", "  c1: {address: 10.0.0.3}", "  c1: {address: 10.0.0.3, host: hots1}",
     "controllers.c1.host", "hots1"),
    ("a number for a controller's host", "  c1: {address: 10.0.0.3}", "  c1: {address: 10.0.0.3, host: 1}",
     "controllers.c1.host", "host: 1"),
    ("no controllers", "  c1: {address: 10.0.0.3}\n", "  {}\n", "controllers", "controllers"),
    ("nothing for controllers", "  c1: {address: 10.0.0.3}\n", "", "controllers", "controllers"),
    ("an XML file that is missing", "vms/web1.xml", "vms/none.xml", "vms.web1.xml_file", "none.xml"),
    ("an XML file that is a folder", "vms/web1.xml", "vms", "vms.web1.xml_file", "xml_file: vms"),
    ("an XML file that is no XML", "vms/web1.xml", "cluster.yaml", "vms.web1.xml_file", "xml_file: cluster"),
    ("another name in the XML", "  web1:\n", "  web2:\n", "vms.web2.xml_file", "xml_file"),
    ("short form beside XML", "vms/web1.xml", "vms/web1.xml\n    cpus: 2", "vms.web1.cpus", "cpus: 2"),
    ("a VM too large", "memory_mib: 256", "memory_mib: 5000", "vms.db1.memory_mib", "5000"),
    ("a VM with too many cpus", "memory_mib: 256", "memory_mib: 256\n    cpus: 17", "vms.db1.memory_mib", "256"),
    ("an unknown wish", "xml_file: vms/web1.xml", "xml_file: vms/web1.xml\n    wish: on", "vms.web1.wish", "wish: on"),
    ("an unknown fallback", "memory_mib: 256", "memory_mib: 256\n    evacuate_fallback: leave",
     "vms.db1.evacuate_fallback", "leave"),
    ("a rule about a host there is not", "memory_mib: 256", "memory_mib: 256\n    allowed: [host1, hots2]",
     "vms.db1.allowed[1]", "hots2"),
    ("no host is allowed", "memory_mib: 256", "memory_mib: 256\n    allowed: []", "vms.db1.allowed", "[]"),
    ("a host preferred that is not there", "memory_mib: 256", "memory_mib: 256\n    preferred: {hots1: 2}",
     "vms.db1.preferred.hots1", "hots1"),
    ("a weight that is none", "memory_mib: 256", "memory_mib: 256\n    preferred: {host1: much}",
     "vms.db1.preferred.host1", "much"),
    ("a rule about a VM there is not", "memory_mib: 256", "memory_mib: 256\n    together: [web2]",
     "vms.db1.together[0]", "web2"),
    ("apart from itself", "memory_mib: 256", "memory_mib: 256\n    apart: [db1]", "vms.db1.apart[0]", "apart: [db1]"),
    ("apart and together", "memory_mib: 256", "memory_mib: 256\n    apart: [web1]\n    together: [web1]",
     "vms.db1.apart", "apart: [web1]"),
    ("two kinds of disk", 'iscsi: {portal', 'block: /dev/disk/by-id/x\n      iscsi: {portal', "vms.db1.disk", "disk:"),
    ("a file without format", 'iscsi: {portal: "10.0.1.5:3260", target: "iqn.2026-11.net.example:db1"}',
     "file: /shared/a.img", "vms.db1.disk.format", "disk:"),
    ("a format without file", "      iscsi:", "      format: raw\n      iscsi:", "vms.db1.disk.format", "format"),
    ("a relative disk", 'iscsi: {portal: "10.0.1.5:3260", target: "iqn.2026-11.net.example:db1"}',
     "block: dev/x", "vms.db1.disk.block", "dev/x"),
    ("a disk of two VMs", "net.example:db1", "net.example:web1", "vms.db1.disk", "disk:"),
    ("a bad portal", "10.0.1.5:3260", "10.0.1.5:99999", "vms.db1.disk.iscsi.portal", "99999"),
    ("a cmdline without kernel", "memory_mib: 256", "memory_mib: 256\n    cmdline: quiet", "vms.db1.cmdline", "quiet"),
    ("a lease outside its lockspace",
     "memory_mib: 256", "memory_mib: 256\n    storage_lease: {lockspace: fn, path: /shared}",
     "vms.db1.storage_lease.path", "lockspace"),
    ("slots nowhere", "cluster: demo", "cluster: demo\nslots: {}", "slots", "slots"),
    ("slots in two places", "cluster: demo", "cluster: demo\nslots: {folder: /a, device: /b}", "slots", "slots"),
    ("slots in a relative folder", "cluster: demo", "cluster: demo\nslots: {folder: a}", "slots.folder", "slots"),
    ("an unknown profile", "profile: default", "profile: fastest", "policy.profile", "fastest"),
    ("an unknown policy key", "profile: default", "misess: 3", "policy.misess", "misess"),
    ("an unknown choice", "profile: default", "isolated: maybe", "policy.isolated", "maybe"),
    ("unsafe timing", "profile: default", "control_lease_s: 2.5", "policy.control_lease_s", "2.5"),
    ("an alias", "profile: default", "profile: *p", "policy.profile", "*p"),
    ("a tag", "profile: default", "profile: !!python/name:os.system ''", "policy.profile", "python"),
    ("a key twice", "  profile: default", "  tick_s: 1\n  tick_s: 1", "policy.tick_s", "tick_s"),
    ("a VM twice", "  db1:\n", "  web1:\n    xml_file: other.xml\n  db1:\n", "vms.web1", "  web1:"),
    ("a list as key", "profile: default", "[a, b]: 1", "policy", "[a, b]"),
    ("text of two lines", "cluster: demo", 'cluster: "de\\nmo"', "cluster", "cluster"),
    ("half a character", "cluster: demo", 'cluster: "\\ud800"', "cluster", "cluster"),
]  # fmt: skip


def test_the_file_itself_breaks_no_rule(cluster: ClusterFile) -> None:
    assert cluster.faults() == ()


@pytest.mark.parametrize(("old", "new", "key", "words"), [row[1:] for row in BROKEN], ids=[row[0] for row in BROKEN])
def test_a_broken_rule_is_the_only_fault_at_its_key_and_line(
    cluster: ClusterFile, old: str, new: str, key: str, words: str
) -> None:
    cluster.mend(old, new)
    fault = cluster.only_fault()
    assert (fault.key, fault.line) == (key, cluster.line_of(words)), str(fault)
    assert fault.file == str(cluster.path)
    assert fault.rule
    assert "\n" not in str(fault)
    assert len(str(fault)) < 500
    assert SECRET not in str(fault)


def test_all_faults_are_told_at_once_in_the_order_of_lines(cluster: ClusterFile) -> None:
    cluster.mend("cluster: demo", "cluster: DEMO")
    cluster.mend("cpus: 4", "cpus: 0")
    cluster.mend("          password_file: secrets/ipmi", "          password_file: none")
    cluster.mend("address: 10.0.0.12", "address: 10.0.0.11")
    cluster.mend("vms/web1.xml", "vms/none.xml")
    cluster.mend("profile: default", "tick_s: 2\n  control_lease_s: 31\n  misess: 1")
    assert [fault.key for fault in cluster.faults()] == [
        "cluster",
        "hosts.host1.cpus",
        "hosts.host1.fencing[0][0].password_file",
        "hosts.host2.address",
        "vms.web1.xml_file",
        "policy.control_lease_s",
        "policy.misess",
    ]


def test_a_missing_section_is_named(cluster: ClusterFile) -> None:
    cluster.write("cluster: demo\n")
    assert {fault.key for fault in cluster.faults()} == {"redis", "controllers", "hosts"}


def test_an_unsafe_sum_shows_its_numbers_and_stands_at_the_written_key(cluster: ClusterFile) -> None:
    cluster.mend("profile: default", "heartbeat_s: 0.25\n  misses: 2\n  probe_timeout_s: 0.1")
    fault = cluster.only_fault()
    assert (fault.key, fault.line) == ("policy.misses", cluster.line_of("misses"))
    assert "0.25 x misses 2 = 0.5 s" in fault.rule


def test_an_unsafe_sum_over_a_default_stands_at_the_policy(cluster: ClusterFile) -> None:
    cluster.mend("profile: default", "heartbeat_s: 0.5")  # the default probe_timeout_s 0.7 no longer fits
    fault = cluster.only_fault()
    assert (fault.key, fault.line, fault.value) == ("policy.probe_timeout_s", cluster.line_of("policy:"), "0.7")


def test_no_sum_is_made_over_a_value_that_is_broken_itself(cluster: ClusterFile) -> None:
    cluster.mend("profile: default", "heartbeat_s: two\n  probe_timeout_s: 1.5\n  misses: 99")
    assert [fault.key for fault in cluster.faults()] == ["policy.heartbeat_s", "policy.misses"]


def test_a_profile_gives_its_values_and_a_key_overrides_it(cluster: ClusterFile) -> None:
    cluster.mend("profile: default", "profile: fast\n  control_lease_s: 1.4")  # below 3 x the profile's tick_s 0.5
    fault = cluster.only_fault()
    assert fault.key == "policy.control_lease_s"
    assert "tick_s 0.5" in fault.rule


@pytest.mark.parametrize("mode", [0o604, 0o602, 0o644, 0o666])
def test_a_secret_that_others_may_touch_is_refused(cluster: ClusterFile, mode: int) -> None:
    (cluster.path.parent / "secrets" / "ipmi").chmod(mode)
    faults = cluster.faults()
    assert [fault.key for fault in faults] == [IPMI1 + ".password_file", IPMI2 + ".password_file"]
    assert all("chmod 600" in fault.rule for fault in faults)


def test_a_secret_of_a_group_is_well(cluster: ClusterFile) -> None:
    (cluster.path.parent / "secrets" / "ipmi").chmod(0o640)
    assert cluster.faults() == ()


@pytest.mark.parametrize("content", [b"", b"\n", b"  \n", b"two\nlines\n", b"\xff\xfe", b"x" * 5000, b"nul\0"])
def test_a_secret_file_without_one_line_of_text_is_refused(cluster: ClusterFile, content: bytes) -> None:
    (cluster.path.parent / "secrets" / "ipmi").write_bytes(content)
    assert len(cluster.faults()) == 2


def test_ranked_capacity_lets_a_large_vm_pass(cluster: ClusterFile) -> None:
    cluster.mend("memory_mib: 256", "memory_mib: 5000")
    cluster.mend("profile: default", "capacity: rank")
    assert cluster.faults() == ()


def test_how_moves_are_sent_is_read_and_judged_as_the_file_is_loaded(cluster: ClusterFile) -> None:
    cluster.mend("profile: default", "migrate_connections: 4\n  migrate_compression: zstd")
    assert cluster.faults() == ()
    policy = load_settings(cluster.path).policy
    assert (policy.migrate_connections, policy.migrate_compression) == (4, Compression.ZSTD)
    cluster.mend("zstd", "xbzrle")
    fault = cluster.only_fault()
    assert (fault.key, fault.line) == ("policy.migrate_compression", cluster.line_of("migrate_compression"))
    assert "migrate_connections" in fault.rule
    cluster.mend("xbzrle", "lz4")
    assert cluster.only_fault().key == "policy.migrate_compression"


def test_memory_and_cpus_must_fit_on_the_same_host(cluster: ClusterFile) -> None:
    cluster.mend("cpus: 4", "cpus: 1")  # host1: 4096 MiB and 4 cpus with overcommit; host2: 2048 MiB and 16
    cluster.mend("memory_mib: 256", "memory_mib: 3000\n    cpus: 5")
    assert cluster.only_fault().key == "vms.db1.memory_mib"


def test_a_domain_that_no_other_host_can_start_is_refused_unless_ignored(cluster: ClusterFile) -> None:
    xml = cluster.path.parent / "vms" / "web1.xml"
    hostdev = "<devices><hostdev mode='subsystem' type='pci'><source/></hostdev>"
    xml.write_text(xml.read_text().replace("<devices>", hostdev))
    assert cluster.only_fault().key == "vms.web1.xml_file"
    cluster.mend("vms/web1.xml", "vms/web1.xml\n    wish: ignored")
    assert cluster.faults() == ()


def test_two_domains_with_one_uuid_are_refused(cluster: ClusterFile) -> None:
    vms = cluster.path.parent / "vms"
    other = (vms / "web1.xml").read_text().replace("web1", "web2")
    (vms / "web2.xml").write_text(other)
    cluster.mend("  db1:\n", "  web2:\n    xml_file: vms/web2.xml\n  db1:\n")
    fault = cluster.only_fault()
    assert (fault.key, fault.line) == ("vms.web2.xml_file", cluster.line_of("web2.xml"))
    assert "uuid" in fault.rule


def test_a_misspelt_key_is_answered_with_the_right_one(cluster: ClusterFile) -> None:
    cluster.mend("    cpus: 4", "    cpsu: 4\n    cpus: 4")
    assert "cpus" in cluster.only_fault().rule


def test_a_misspelt_password_is_not_shown(cluster: ClusterFile) -> None:
    cluster.mend("username: admin\n", f"username: admin\n          pasword: {SECRET}\n")
    assert SECRET not in str(cluster.only_fault())


WORDS = ["no", "on", "off", "yes", "y", "true", "null", "1e3"]


@pytest.mark.parametrize("word", WORDS)
def test_a_host_may_have_a_name_that_older_yaml_takes_for_something_else(cluster: ClusterFile, word: str) -> None:
    cluster.mend("  host1:\n", f"  {word}:\n")
    assert cluster.faults() == ()


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"", 1),
        (b"# nothing\n", 1),
        (b"---\n...\n", 1),
        (b"just words", 1),
        (b"- a\n- list\n", 1),
        (b"cluster: demo\nhosts: [\n", 3),
        (b"cluster: demo\n\tredis: x\n", 2),
        (b"cluster: 'demo\n", 2),
        (b"cluster: demo\n--- \ncluster: demo\n", 2),
        (b"\x7fELF\x02\x01\x01\x00\x00", 1),
        (b"cluster: demo\nredis: \xff\xfe\n", 1),
        (b"cluster: demo\nredis: \x07\n", 2),
        (b"[" * 100_000, 1),
        (b"- " * 50_000, 1),
        (b"{a: " * 5_000, 1),
        (b'cluster: "\\U00110000"', 1),
        (b"%YAML 99999999999999999999.1\n---\na: b\n", 1),
        (b"a" * (1 << 21), 1),
    ],
    ids=range(18),
)  # fmt: skip
def test_a_file_that_is_no_cluster_file_is_one_sentence(cluster: ClusterFile, content: bytes, line: int) -> None:
    cluster.path.write_bytes(content)
    fault = cluster.only_fault()
    assert (fault.key, fault.line) == ("", line), str(fault)


def test_a_yaml_bomb_is_not_expanded(cluster: ClusterFile) -> None:
    bomb = 'a: &a ["lol"]\n' + "".join(
        f"{chr(98 + n)}: &{chr(98 + n)} [{', '.join([f'*{chr(97 + n)}'] * 9)}]\n" for n in range(20)
    )
    cluster.write(bomb)
    assert len(cluster.faults()) < 300


@pytest.mark.parametrize("name", ["none.yaml", ".", "x" * 300, "secrets/ipmi/deeper", "a\0b"])
def test_a_path_that_is_no_readable_file_is_one_sentence(cluster: ClusterFile, name: str) -> None:
    cluster.path = cluster.path.parent / name
    assert cluster.only_fault().line == 1


def test_a_pipe_does_not_make_it_wait(cluster: ClusterFile) -> None:
    pipe = cluster.path.parent / "pipe"
    os.mkfifo(pipe)
    cluster.mend("vms/web1.xml", "pipe")
    cluster.mend("          password_file: secrets/ipmi", "          password_file: pipe")
    assert len(cluster.faults()) == 2
    cluster.path = Path(pipe)
    assert cluster.only_fault().line == 1


def test_a_byte_order_mark_is_read_over(cluster: ClusterFile) -> None:
    cluster.path.write_bytes(b"\xef\xbb\xbf" + WELL.encode())
    assert cluster.faults() == ()
