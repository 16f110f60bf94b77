"""Topologies and scenarios that want to crash, hang or fill whoever reads them."""

import itertools
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from discovery_xp.boundary.reading import Unreadable, read_bytes, read_text
from discovery_xp.errors import InvalidInput
from discovery_xp.inputs import yamlfile
from discovery_xp.inputs.fields import OWN_NETWORKS
from discovery_xp.inputs.scenario import parse_scenario, read_scenario
from discovery_xp.inputs.topology import parse_topology, read_topology
from discovery_xp.inputs.topology_file import MAX_HOSTS, MAX_SITES
from discovery_xp.planning.plan_checks import LEAST_ANSWERED_PERCENT

TWO = "sites: [{name: a}, {name: b}]\n"
STATIC = TWO + "provider: {type: static, hosts: {a: [10.0.0.1, 10.0.0.2, 10.0.0.3], b: [%s]}%s}\n"
G5K = TWO + "provider: {type: g5k, site: rennes, cluster: paravance, %s}\n"
CONFIG = TWO + "openstack: {config: {nova: %s}}\n"


def problems_of(parse: Callable[[str, str], object], text: str) -> list[str]:
    with pytest.raises(InvalidInput) as caught:
        parse(text, "t.yaml")
    lines = str(caught.value).splitlines()
    assert len(lines) == len(caught.value.problems) <= 51
    assert all(line.isprintable() and len(line) < 400 for line in lines)
    return lines


BAD = [
    (TWO + "master: [a]", "t.yaml:2: master: '['a']' is not text"),
    (TWO + "master: {a: b}", "t.yaml:2: master: "),
    ("[" * 1000, "is nested too deeply; write at most 20 levels"),
    ("[" * 100_000, "is nested too deeply"),
    ("a: " + "{b: " * 100_000, "is nested too deeply"),
    ("a: &a [*a]", "is nested too deeply"),
    ("? " * 10_000, "is nested too deeply"),
    ("{a: b}: c", "t.yaml:1: a mapping stands as a key; write a word before ':'"),
    ("x: 1\n? [a]\n: c", "t.yaml:2: a list stands as a key"),
    (TWO + "description: !!python/name:os.system x", "t.yaml:2: the tag '!!python/name:os.system'"),
    (TWO + "network: !mine {}", "t.yaml:2: the tag '!mine' isn't read; leave it out"),
    ("!!set {a}", "the tag '!!set' isn't read"),
    ("a: *b", "t.yaml:1: '*b' stands for nothing"),
    (TWO + "---\n" + TWO, "t.yaml:2: a second document"),
    ("a: \x00", "t.yaml:1: a character that YAML forbids, '\\x00'; take it out"),
    ("a: 1\nb: \x1b[2J", "t.yaml:2: a character that YAML forbids, '\\x1b'"),
    ('"\\e[2J\\n": 1\n' + TWO, "t.yaml:1: \\x1b[2J\\n: unknown key"),
    ('sites: [{name: "a\\e[31m\\nb\\u202e"}]', "'a\\x1b[31m\\nb\\u202e' is not a name"),
    (TWO + f"network: {{delay: '{'1' * 300_000}!'}}", "...' is not a duration"),
    (TWO + f"network: {{delay: {'1' * 300_000}}}", "...' is not a duration"),
    (TWO + "network: {delay: [10ms]}", "network.delay: '['10ms']' is not a duration"),
    (TWO + "network: {delay: 1ms, links: {a: b}}", "network.links: "),
    (TWO + "network: {links: [{between: [[a], b], delay: 1ms}]}", "is not text"),
    (TWO + f"provider: {{type: local, limits: {{data: {{memory: {'9' * 40}GB}}}}}}", "over 16 TiB"),
    (TWO + f"provider: {{type: local, limits: {{data: {{memory: {'9' * 400}GB}}}}}}", "not a size"),
    (TWO + "provider: {type: local, limits: {data: {cpus: 1e999}}}", "limits.data.cpus: "),
    (TWO + "provider: {type: [local]}", "provider"),
    (TWO + "provider: {type: local, network: 0.0.0.0/16}", "'0.0.0.0/16' is not a private network"),
    (TWO + "provider: {type: local, network: 0.0.0.0/0}", "is not a private network"),
    (TWO + "provider: {type: local, network: 224.0.0.0/8}", "is not a private network"),
    (TWO + "provider: {type: local, network: 127.0.0.0/8}", "is not a private network"),
    (TWO + "provider: {type: local, network: 169.254.0.0/16}", "is not a private network"),
    (TWO + "provider: {type: local, network: 240.0.0.0/8}", "is not a private network"),
    (TWO + "provider: {type: vagrant, network: 0.0.0.0/24}", "is not a private network"),
    (TWO + "provider: {type: vagrant, box: \"x'; system('id')\"}", "provider.box: "),
    (TWO + "provider: {type: vagrant, user: '{{ x }}'}", "provider.user: '{{ x }}' is not a user"),
    (STATIC % ("127.0.0.1, 10.0.0.4", ""), "'127.0.0.1' is no address of another host (loopback)"),
    (STATIC % ("224.0.0.1, 10.0.0.4", ""), "(multicast)"),
    (STATIC % ("169.254.1.1, 10.0.0.4", ""), "(link-local)"),
    (STATIC % ("0.0.0.0, 10.0.0.4", ""), "(this network)"),
    (STATIC % ("{address: 255.255.255.255}, 10.0.0.4", ""), "(reserved)"),
    (STATIC % ("10.0.0.4, 10.0.0.5", ", user: \"{{ lookup('pipe', 'id') }}\""), "provider.user: "),
    (STATIC % ("10.0.0.4, 10.0.0.5", ', user: "root\\n  ProxyCommand id"'), "provider.user: "),
    (STATIC % ("10.0.0.4, 10.0.0.5", ', key: "/k\\n  ProxyCommand id"'), "provider.key: "),
    (STATIC % ("10.0.0.4, 10.0.0.5", ", key: '/k\"'"), "provider.key: "),
    (STATIC % ("10.0.0.4, 10.0.0.5", ", key: '/k/{{x}}'"), "provider.key: "),
    (STATIC % ("10.0.0.4, 10.0.0.5", ", key: '/k/${HOME}'"), "provider.key: "),
    (STATIC % ("10.0.0.4, 10.0.0.5", ", key: -i"), "provider.key: '-i' is not a path"),
    (STATIC % ("10.0.0.4, 10.0.0.5", ", key: ~nobody-of-that-name/k"), "is not a path"),
    (STATIC % ("{address: 10.0.0.4, user: 'a b'}, 10.0.0.5", ""), "hosts.b[0].user: 'a b' is not"),
    (G5K % "environment: '[/x]'", "provider.environment: '[/x]' is not such a name"),
    (G5K % "environment: \"d\\nx\"", "provider.environment: "),
    (G5K % "project: 'a b'", "provider.project: "),
    (G5K % "job_types: ['x={{y}}']", "is not a type of job"),
    (G5K % "job_types: [[a], {b: c}]", "provider.job_types[0]: '['a']' is not text"),
    (G5K % "sites: {b: {site: \"x'\", cluster: c}}", "provider.sites.b.site: "),
    (G5K % "jump_host: 'a -oProxyCommand=id'", "is not a jump host"),
    (G5K % "reservation: '\uff12\uff10\uff12\uff17-03-01 19:00:00'", "is not a start"),
    (G5K % f"job_types: [{'x, ' * 100}]", "has too many items (100); write at most 20"),
    (CONFIG % '{"a]\\n[b": {x: 1}}', "'a]\\n[b' is not a section"),
    (CONFIG % '{DEFAULT: {"x=1\\ny": 1}}', "'x=1\\ny' is not an option"),
    (CONFIG % '{DEFAULT: {x: "1\\n[api]"}}', "holds a line break or a control character"),
    (CONFIG % '{DEFAULT: {x: "\\e[2J"}}', "holds a line break or a control character"),
    (CONFIG % f"{{DEFAULT: {{x: {'y' * 5000}}}}}", "is over 4000 characters"),
    (CONFIG % "{DEFAULT: {x: [1]}}", "is not a value"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "words"), BAD, ids=lambda text: ascii(text[-25:]))
def test_each_is_a_line_with_its_place_and_a_remedy(text: str, words: str) -> None:
    lines = problems_of(parse_topology, text)
    assert any(words in line for line in lines), lines
    assert all("; " in line for line in lines)


def test_what_writers_of_files_need_is_let_through() -> None:
    topology = parse_topology(
        STATIC % ("10.0.0.4, 10.0.0.5", ', user: debian, key: "/home/a b/é_k.pem"')
        + 'openstack: {config: {nova: {"filter:cors": {"a.b-c": "{{ x }} = [y]; # é"}}}}\n'
    )
    assert topology.openstack.config["nova"]["filter:cors"]["a.b-c"] == "{{ x }} = [y]; # é"
    assert parse_topology(TWO + "description: !!str 5").description == "5"


# Each takes a third of a second of an idle machine's processor; they took minutes, or all memory,
# where a check looked at everything for everything.
MOMENT_S = 60
LARGE = {
    "clashes": "sites:\n" + "- {name: s, count: 250}\n" * 300,
    "sites": "sites:\n" + "".join(f"- {{name: s{i}x, count: 250}}\n" for i in range(4000)),
    "hosts": "sites: [{name: s, count: 250, controllers: 1000, computes: 1000, data: 1000}]\n"
    "provider: {type: local, network: 10.0.0.0/8}\n",
    "rules": TWO + "network:\n  links:\n" + "  - {between: [a, b], delay: 1ms}\n" * 5000,
    "unknown sites": TWO + "network:\n  links:\n" + "  - {from: x, to: y, delay: 1ms}\n" * 5000,
    "unknown keys": TWO + "".join(f"k{i}: 1\n" for i in range(10_000)),
    "one key": "sites: []\n" * 5000,
    "unknown site": TWO + f"master: {'x' * 500_000}\n",
    "unknown key": TWO + f"? {'x' * 500_000}\n: 1\n",
    "clusters": G5K % ("sites: {" + "".join(f"x{i}: 1, " for i in range(10_000)) + "}"),
    "words": f"a: &a [{'x, ' * 10}]\n"
    + "".join(f"{b}: &{b} [{f'*{a} , ' * 10}]\n" for a, b in itertools.pairwise("abcdefgh"))
    + TWO,
    "long word": f"a: &a {'x' * 1_000_000}\nsites: [{'*a, ' * 10_000}]\n",
}


@pytest.mark.parametrize("kind", LARGE)
def test_a_large_file_is_refused_in_a_moment(kind: str) -> None:
    started = time.process_time()
    lines = problems_of(parse_topology, LARGE[kind])
    assert time.process_time() - started < MOMENT_S
    assert len(lines) <= 51


def test_many_hosts_are_named_with_the_bound() -> None:
    assert "t.yaml:1: sites: 750000 hosts; write at most 10000 in all" in str(
        problems_of(parse_topology, LARGE["hosts"])
    )
    assert "a second site 's1' and 249 more" in problems_of(parse_topology, LARGE["clashes"])[1]


SCENARIOS = [
    ("kind: [boot]", "kind: "),
    ("kind: boot\nname: ../x", "name: '../x' is not a name"),
    ("kind: boot\nflavor: '{{ x }}'", "flavor: '{{ x }}' is not such a name"),
    ('kind: boot\nimage: "a\\nb"', "image: 'a\\nb' is not such a name"),
    ("kind: boot\nspread: [[a]]", "spread[0]: '['a']' is not a region"),
    ("kind: boot\nspread: [" + "a, " * 50_000 + "]", "spread: 50000 regions; write at most 250"),
    ("kind: reads\nreads: [" + "list, " * 50_000 + "]", "reads: 50000 reads; write at most 100"),
    (f"kind: boot\nvm_timeout: '{'1' * 300_000}!'", "vm_timeout: "),
    ("kind: boot\nvms: 99999999999999999999999", "vms: "),
    ("kind: boot\npoll_interval: [1s]", "poll_interval: "),
    ("[" * 1000, "is nested too deeply"),
    ("kind: !x boot", "the tag '!x' isn't read"),
]


@pytest.mark.parametrize(("text", "words"), SCENARIOS, ids=lambda text: ascii(text[:25]))
def test_scenarios_are_refused_alike(text: str, words: str) -> None:
    started = time.process_time()
    assert any(words in line for line in problems_of(parse_scenario, text))
    assert time.process_time() - started < MOMENT_S


def test_regions_may_have_the_longest_names_of_sites() -> None:
    long = "s" * 30 + "250"
    assert parse_scenario(f"kind: boot\nspread: [{long}]").regions == (long,)


def test_the_bounds_are_those_of_the_docs() -> None:
    docs = (Path(__file__).parents[2] / "docs/topologies.md").read_text()
    for words in (
        f"at most {yamlfile.MAX_BYTES // 10**6} MB; pipes",
        f"{yamlfile._MAX_DEPTH} levels deep, {yamlfile._MAX_VALUES:,} values and "
        f"{yamlfile.MAX_BYTES // 10**6} MB",
        f"| problems | the first {yamlfile.MAX_PROBLEMS} |",
        f"| sites, hosts | {MAX_SITES}, and {MAX_HOSTS:,} in all |",
        ", ".join(f"`{network}`" for network in OWN_NETWORKS[:-1]) + f" or `{OWN_NETWORKS[-1]}`",
        f"{LEAST_ANSWERED_PERCENT:g} % must come back",
    ):
        assert words in docs


# ---------------------------------------------------------------- what is no file


@pytest.fixture
def no_files(tmp_path: Path) -> dict[str, Path]:
    """Paths that a reader could wait for, or read for ever, by what is said of them."""
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(tmp_path / "socket"))
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "large").write_bytes(b"#" * 4_000_001)
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    return {
        "is a pipe": tmp_path / "pipe",
        "is a folder": tmp_path,
        "is a device": Path("/dev/zero"),
        "can't be read (No such device": tmp_path / "socket",
        "can't be read (Too many levels": tmp_path / "loop",
        "can't be read (File name too long)": tmp_path / ("x" * 300),
        "can't be read (Not a directory)": tmp_path / "bytes/x",
        "is no path (": tmp_path / "a\x00b",
        "no such file": tmp_path / "none",
        "is over 4 MB": tmp_path / "large",
        "is not UTF-8 text": tmp_path / "bytes",
    }


@pytest.mark.parametrize("read", [read_topology, read_scenario])
def test_what_is_no_file_is_refused_without_waiting(
    read: Callable[[Path], object], no_files: dict[str, Path]
) -> None:
    for words, path in no_files.items():
        with pytest.raises(InvalidInput) as caught:
            read(path)
        assert words in str(caught.value)
        assert len(str(caught.value).splitlines()) == 1


def test_devices_are_no_files() -> None:
    for device in ("/dev/full", "/dev/null", "/dev/urandom"):
        with pytest.raises(Unreadable, match="is a device"):
            read_bytes(Path(device), 10)


def test_a_file_that_grows_is_read_up_to_the_bound(tmp_path: Path) -> None:
    # Its size says nothing.
    with pytest.raises(Unreadable, match="is over 1e-05 MB"):
        read_bytes(Path("/proc/self/status"), 10)
    path = tmp_path / "f"
    path.write_text("é" * 5)
    assert read_text(path, 10) == "é" * 5
