import json
from pathlib import Path

import jsonschema
import pytest
import yaml

from discovery_xp.errors import InvalidInput
from discovery_xp.inputs.platforms import (
    ChameleonProvider,
    G5kProvider,
    VagrantProvider,
    VMonG5kProvider,
)
from discovery_xp.inputs.topology import (
    Limit,
    Link,
    LocalProvider,
    StaticProvider,
    derive_topology,
    parse_topology,
    read_topology,
)
from discovery_xp.inputs.topology_file import topology_schema

SHIPPED = sorted((Path(__file__).parents[2] / "topologies").glob("*.yaml"))

TWO = "sites: [{name: a}, {name: b}]\n"


def problems_of(text: str) -> list[str]:
    with pytest.raises(InvalidInput) as caught:
        parse_topology(text, "t.yaml")
    return [str(problem) for problem in caught.value.problems]


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_topology_is_read_and_fits_the_schema(path: Path) -> None:
    assert read_topology(path).sites
    jsonschema.validate(yaml.safe_load(path.read_text()), topology_schema())


def test_the_shipped_eight_sites_are_the_papers() -> None:
    topology = read_topology(next(path for path in SHIPPED if path.stem == "eight-sites"))
    assert len(topology.sites) == 8
    assert {(site.controllers, site.computes, site.data) for site in topology.sites} == {(1, 6, 1)}
    assert topology.default == Link(delay_ms=10)


def test_defaults() -> None:
    topology = parse_topology("sites: [{name: a}]", "my-first.yaml")
    assert topology.name == "my-first"
    assert topology.master == "a"
    assert topology.provider == LocalProvider()
    assert topology.default.is_plain


def test_count_makes_numbered_sites() -> None:
    topology = parse_topology("sites: [{name: s, count: 3, computes: 2}, {name: hub}]")
    assert [site.name for site in topology.sites] == ["s1", "s2", "s3", "hub"]


def test_a_round_trip_is_half_each_way() -> None:
    topology = parse_topology(TWO + "network: {rtt: 30ms}")
    assert topology.link("a", "b").delay_ms == topology.link("b", "a").delay_ms == 15


def test_a_rule_changes_what_it_names_and_inherits_the_rest() -> None:
    topology = parse_topology(
        "sites: [{name: a}, {name: b}, {name: c}]\n"
        "network:\n  delay: 10ms\n  loss: 1%\n  rate: 1gbit\n"
        "  links:\n"
        "    - {between: [a, b], rtt: 4ms, loss: 0%}\n"
        "    - {from: a, to: c, delay: 7ms, jitter: 1ms}\n"
    )
    assert topology.link("a", "b") == topology.link("b", "a") == Link(2, 0, 0, 1000)
    assert topology.link("a", "c") == Link(7, 1, 1, 1000)
    assert topology.link("c", "a") == topology.link("b", "c") == Link(10, 0, 1, 1000)
    assert topology.link("a", "a") == Link()


def test_limits_fall_back_to_the_default() -> None:
    topology = parse_topology(
        "sites: [{name: a}]\n"
        "provider: {type: local, limits: {default: {cpus: 0.5, memory: 256MiB}, "
        "data: {memory: 1GiB}}}"
    )
    assert isinstance(topology.provider, LocalProvider)
    assert topology.provider.limit("compute") == Limit(0.5, 256 * 2**20)
    assert topology.provider.limit("data") == Limit(0.5, 2**30)


def test_static_hosts_take_the_providers_defaults() -> None:
    topology = parse_topology(
        "sites: [{name: a, computes: 1}]\nmaster: none\n"
        "provider:\n  type: static\n  user: debian\n  key: /k\n"
        "  hosts: {a: [192.168.0.1, {address: 192.168.0.2, port: 2222, user: root}]}\n"
    )
    assert isinstance(topology.provider, StaticProvider)
    first, second = topology.provider.hosts["a"]
    assert (first.user, first.port, first.key) == ("debian", 22, "/k")
    assert (second.user, second.port, second.key) == ("root", 2222, "/k")


def test_one_cluster_can_hold_all_sites() -> None:
    topology = parse_topology(
        TWO + "provider: {type: g5k, site: rennes, cluster: paravance,"
        " sites: {b: {site: nancy, cluster: gros}}}"
    )
    assert isinstance(topology.provider, G5kProvider)
    assert topology.provider.clusters["a"].cluster == "paravance"
    assert topology.provider.clusters["b"].site == "nancy"


def test_grid5000_s_options_are_kept() -> None:
    provider = parse_topology(
        TWO + "provider: {type: g5k, site: rennes, cluster: paravance, spares: 2,"
        " job_types: [night, monitor=prom_.*], network: kavlan, key: ~/k,"
        " jump_host: alice@access.grid5000.fr}"
    ).provider
    assert isinstance(provider, G5kProvider)
    assert provider.job.types == ("night", "monitor=prom_.*")
    assert (provider.spares, provider.network) == (2, "kavlan")
    assert provider.access.key == str(Path("~/k").expanduser())
    assert provider.access.jump_host == "alice@access.grid5000.fr"


def test_the_other_platforms_are_read_too() -> None:
    vms = parse_topology(
        TWO + "provider: {type: vmong5k, site: rennes, cluster: paravance, memory: 8GiB}"
    ).provider
    assert isinstance(vms, VMonG5kProvider)
    assert (vms.memory_mib, vms.clusters["b"].cluster) == (8192, "paravance")
    vagrant = parse_topology(TWO + "provider: vagrant").provider
    assert isinstance(vagrant, VagrantProvider)
    assert (vagrant.box, vagrant.network) == ("generic/debian12", "192.168.42.0/24")
    chameleon = parse_topology(
        TWO + "provider: {type: chameleon, rc_file: rc.sh, key_name: k, image: debian,"
        " flavour: compute_haswell}"
    ).provider
    assert isinstance(chameleon, ChameleonProvider)
    assert (chameleon.kind, chameleon.user) == ("baremetal", "cc")


BAD = [
    # (text, what the problem says: place, value and remedy)
    ("sites: [{name: a}]\nnetwrk: {}", "t.yaml:2: netwrk: unknown key; did you mean 'network'?"),
    (TWO + "network:\n  delay: 10", "t.yaml:3: network.delay: '10' has no unit; write '10ms'"),
    (TWO + "network: {delay: 1ms, rtt: 2ms}", "network.rtt: 'delay' and 'rtt' say the same"),
    (TWO + "network: {delay: -1ms}", "'-1ms' is negative"),
    (TWO + "network: {loss: 100%}", "'100%' loses every packet; write less than '100%'"),
    (TWO + "network: {delay: 1ms, jitter: 2ms}", "the jitter (2ms) is over the one-way delay"),
    (TWO + "network: {jitter: 2ms}", "the jitter (2ms) is over the one-way delay (0ms)"),
    (
        TWO + "network:\n  links:\n    - {between: [a, c], delay: 1ms}",
        "t.yaml:4: network.links[0].between[1]: site 'c' is not declared; declared: a, b",
    ),
    (
        TWO + "network:\n  links:\n"
        "    - {between: [a, b], delay: 1ms}\n    - {between: [b, a], delay: 2ms}",
        "t.yaml:5: network.links[1]: a second rule for b to a (the first is on line 4)",
    ),
    (
        TWO + "network:\n  links:\n"
        "    - {between: [a, b], delay: 1ms}\n    - {from: a, to: b, delay: 2ms}",
        "a second rule for a to b (the first is on line 4); keep one of them",
    ),
    (TWO + "network: {links: [{between: [a, a], delay: 1ms}]}", "'a' has no link to itself"),
    (TWO + "network: {links: [{between: [a], delay: 1ms}]}", "has too few items (1)"),
    (TWO + "network: {links: [{from: a, delay: 1ms}]}", "'to' is missing; write both"),
    (TWO + "network: {links: [{delay: 1ms}]}", "a rule needs its pair of sites"),
    (TWO + "network: {links: [{from: a, to: b, rtt: 1ms}]}", "a round trip has no direction"),
    (TWO + "network: {links: [{from: a, to: b}]}", "a rule that changes nothing"),
    ("sites: []", "sites: has too few items (0); write at least 1"),
    ("sites: [{name: a}, {name: a}]", "sites[1].name: a second site 'a'; rename one"),
    ("sites: [{name: s1}, {name: s, count: 2}]", "a second site 's1'"),
    ("sites: [{name: compute}]", "'compute' is a word of its own; choose another name"),
    ("sites: [{name: A_b}]", "'A_b' is not a name; write 1 to 30 of a-z"),
    ("sites: [{name: a, computes: '3'}]", "'3' is not a whole number; write e.g. 3"),
    ("sites: [{name: a, computes: 2.5}]", "'2.5' is not a whole number"),
    ("sites: [{name: a, computes: -1}]", "'-1' is out of range; write at least 0"),
    ("sites: [{name: a, count: 251}]", "'251' is out of range; write at most 250"),
    ("sites: [{name: a, controllers: 0, computes: 0}]", "a site without any server"),
    ("sites: [{computes: 1}]", "sites[0]: 'name' is missing; add 'name: ...'"),
    ("sites: 5", "'5' is not a list"),
    ("sites: [a]", "'a' is not a mapping"),
    (TWO + "master: c", "master: site 'c' is not declared; write a, b or 'none'"),
    ("sites: [{name: a, controllers: 0}]\nmaster: none", "'none' needs a controller"),
    (TWO + "provider: lokal", "'lokal' is unknown; did you mean 'local'?"),
    (TWO + "provider: {}", "'type' is missing"),
    (TWO + "provider: {type: local, wan: fast}", "'fast' is unknown; write one of 'auto'"),
    (TWO + "provider: {type: local, network: 8.8.0.0/16}", "is not a private network"),
    (TWO + "provider: {type: local, network: 10.0.0.1/16}", "is not an IPv4 network"),
    (TWO + "provider: {type: local, network: 10.0.0.0/24}", "has no room for 2 sites of a /24"),
    (TWO + "provider: {type: local, limits: {compute: {cpus: 0}}}", "'0' is out of range"),
    (TWO + "provider: {type: local, limits: {compute: {memory: 5}}}", "'5' has no unit"),
    (TWO + "provider: {type: local, limits: {computes: {}}}", "unknown key"),
    (
        TWO + "provider: {type: static, hosts: {a: [10.0.0.1, 10.0.0.2, 10.0.0.3]}}",
        "no hosts for site 'b'",
    ),
    (
        TWO + "provider: {type: static, hosts: {a: [10.0.0.1], b: [10.0.0.2, 10.0.0.3]}}",
        "1 hosts, but the site needs 3; list more hosts or lower the site's counts",
    ),
    (
        TWO + "provider: {type: static, hosts: {a: [10.0.0.1, 10.0.0.1, h], b: []}}",
        "provider.hosts.a[1]: '10.0.0.1' is listed twice",
    ),
    (
        TWO + "provider: {type: static, hosts: {a: [10.0.0.1, 10.0.0.2, h], b: []}}",
        "provider.hosts.a[2]: 'h' is not an IPv4 address; write e.g. '192.168.0.7'",
    ),
    (TWO + "provider: {type: local, limits: {data: {memory: 1MiB}}}", "is too small for a host"),
    (TWO + "provider: {type: g5k}", "no cluster for a, b; write 'site' and 'cluster'"),
    (TWO + "provider: {type: g5k, site: r, cluster: c, walltime: 2:00}", "is not a walltime"),
    (TWO + "provider: {type: g5k, site: r, cluster: c, reservation: now}", "is not a start"),
    (
        TWO + "provider: {type: g5k, site: r, cluster: c, reservation: '2027-02-30 10:00:00'}",
        "'2027-02-30 10:00:00' is not a start",
    ),
    (
        TWO + "provider: {type: g5k, site: r, cluster: c, reservation: '9999-01-01 10:00:00'}",
        "is not a start",
    ),
    (TWO + "provider: {type: g5k, site: r, cluster: c, job_types: 5}", "'5' is not a list"),
    (TWO + "provider: {type: g5k, site: r, cluster: c, spares: -1}", "'-1' is out of range"),
    (TWO + "provider: {type: g5k, site: r, cluster: c, network: vlan}", "'vlan' is unknown"),
    (TWO + "provider: {type: g5k, site: r, cluster: c, jump_host: 'a b'}", "is not a jump host"),
    (
        TWO + "provider: {type: g5k, site: r, cluster: c, job_types: [night, deploy]}",
        "provider.job_types[1]: 'deploy' is there anyway; leave it out",
    ),
    (TWO + "provider: {type: g5k, site: r, cluster: c, job_types: [A B]}", "not a type of job"),
    (
        TWO + "provider: {type: g5k, site: r, cluster: c, job_types: [besteffort],"
        " reservation: '2027-03-01 19:00:00'}",
        "a job of type besteffort has no start",
    ),
    (
        TWO + "provider: {type: g5k, site: r, cluster: c, sites: {z: {site: n, cluster: g}}}",
        "provider.sites.z: site 'z' is not declared",
    ),
    (TWO + "provider: {type: vmong5k, site: r}", "no cluster for a, b"),
    (TWO + "provider: {type: vmong5k, site: r, cluster: c, memory: 4}", "'4' has no unit"),
    (TWO + "provider: {type: vagrant, network: 8.8.8.0/24}", "is not a private network"),
    (TWO + "provider: {type: vagrant, backend: kvm}", "'kvm' is unknown; write one of 'libvirt'"),
    (TWO + "provider: {type: chameleon}", "'rc_file' is missing"),
    ("sites: [{name: a}]\nsites: [{name: b}]", "sites: is written twice (first on line 1)"),
    ("sites: [", "is not YAML"),
    ("", "is not a topology; write a mapping with 'sites:'"),
    ("- a", "is not a topology"),
    ("a: &a [*a, *a]", "is nested too deeply"),
]


@pytest.mark.parametrize(("text", "message"), BAD, ids=[message[:40] for _, message in BAD])
def test_what_is_wrong_is_said_with_place_value_and_remedy(text: str, message: str) -> None:
    found = problems_of(text)
    assert any(message in problem for problem in found), found
    assert all(problem.startswith("t.yaml:") and "; " in problem for problem in found)


def test_all_problems_are_found_at_once() -> None:
    found = problems_of(
        "name: X\nsites:\n  - {name: a, computes: many}\nmaster: zz\n"
        "network:\n  delay: 10\n  links:\n    - {between: [a, q], delay: 1ms}\n"
    )
    lines = [int(problem.split(":")[1]) for problem in found]
    assert lines == sorted(lines)
    assert set(lines) == {1, 3, 4, 6, 8}


def test_yaml_keeps_what_was_written() -> None:
    # YAML 1.1 would read these as a boolean, an octal number and a sexagesimal one.
    text = "sites: [{name: no}]\nprovider: {type: g5k, site: r, cluster: c, walltime: 12:30:00}"
    topology = parse_topology(text)
    assert topology.sites[0].name == "no"
    assert isinstance(topology.provider, G5kProvider)
    assert topology.provider.job.walltime == "12:30:00"


def test_derived_sites_are_the_papers() -> None:
    topology = derive_topology(3, "50ms")
    assert len(topology.sites) == 3
    assert topology.sites[0].computes == 6
    assert topology.default.delay_ms == 50


@pytest.mark.parametrize(("sites", "latency"), [(0, None), (251, "1ms"), (2, "50"), (2, "-1ms")])
def test_bad_options_are_refused(sites: int, latency: str | None) -> None:
    with pytest.raises(InvalidInput, match=r"--(sites|latency)"):
        derive_topology(sites, latency)


def test_the_schema_is_json_and_refuses_what_the_reader_refuses() -> None:
    schema = json.loads(json.dumps(topology_schema()))
    for text in ("sites: [{name: A}]", "sites: []", "sites: [{name: a}]\nx: 1"):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(yaml.safe_load(text), schema)
