"""A topology writes the file that says it: what is read of that is the same topology."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from discovery_xp.inputs.topology import derive_topology, parse_topology, read_topology
from discovery_xp.inputs.yamlfile import parse_yaml
from discovery_xp.planning.plan import make_plan
from tests.unit.test_cli import discovery_xp

TOPOLOGIES = sorted((Path(__file__).parents[2] / "topologies").glob("*.yaml"))


def quantities(unit: str, most: float, least: float = 0.0) -> st.SearchStrategy[str]:
    numbers = st.decimals(least, most, places=3, allow_nan=False, allow_infinity=False)
    return numbers.map(lambda number: f"{number}{unit}")


def some_of(**keys: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=keys)


NAMES = st.from_regex(r"[a-z]{1,8}[0-9]{0,2}", fullmatch=True)
TEXTS = st.text("ab1 :#'\"\\{}%-é\t", max_size=40)
SETTINGS = st.one_of(
    st.booleans(), st.integers(-(10**9), 10**9), st.floats(-1e6, 1e6).map(lambda x: round(x, 4)),
    st.sampled_from(["1e3", "0o17", "no", "1_000", "2027-01-01", "12:30:00", "~", "0x1f", "# a"]),
)  # fmt: skip


@st.composite
def files(draw: st.DrawFn) -> dict[str, Any]:
    """What a person could write, as the values of YAML."""
    counts = some_of(
        controllers=st.integers(1, 3), computes=st.integers(0, 4), data=st.integers(0, 2),
        count=st.integers(1, 4),
    )  # fmt: skip
    entries = []
    for name in draw(st.lists(NAMES, min_size=1, max_size=4, unique=True)):
        entries.append({"name": f"{name}x", **draw(counts)})
    sites = [
        f"{entry['name']}{number}" if "count" in entry else entry["name"]
        for entry in entries
        for number in range(1, entry.get("count", 1) + 1)
    ]
    rates = st.sampled_from(["1gbit", "100mbit", "64001kbit"])
    slow = some_of(loss=quantities("%", 50), rate=rates)
    network: dict[str, Any] = {"delay": draw(quantities("ms", 300, 10)), **draw(slow)}
    network |= draw(some_of(jitter=quantities("us", 9000)))
    pairs = [(one, other) for one in sites for other in sites if one < other]
    links = []
    ruled = st.lists(st.sampled_from(pairs), max_size=4, unique=True) if pairs else st.just([])
    for one, other in draw(ruled):
        kind = draw(st.sampled_from(["between", "there", "both"]))
        delays = quantities("ms", 900, 10)
        if kind == "between":
            links.append({"between": [one, other], "delay": draw(delays), **draw(slow)})
        else:
            links.append({"from": one, "to": other, "delay": draw(delays)})
        if kind == "both":
            links.append({"from": other, "to": one, "delay": draw(delays)})
    network["links"] = links
    network |= draw(some_of(tolerance=st.fixed_dictionaries(
        {"absolute": quantities("ms", 50), "relative": quantities("%", 90)})))  # fmt: skip
    limits = st.dictionaries(
        st.sampled_from(["default", "master", "compute"]),
        some_of(cpus=st.sampled_from([0.5, 1, 2.25]), memory=st.sampled_from(["512MiB", "1GB"]),
                disk=quantities("GiB", 20, 1), processes=st.integers(64, 9000)),
    )  # fmt: skip
    cloud = some_of(
        backend=st.sampled_from(["mysql", "galera", "rome"]),
        placement=st.sampled_from(["shared", "availability-zones"]),
        nics=st.integers(0, 1),
        workers=st.dictionaries(st.sampled_from(["default", "glance"]), st.integers(1, 4)),
        config=st.fixed_dictionaries(
            {"nova": st.fixed_dictionaries({"DEFAULT": st.dictionaries(NAMES, SETTINGS)})}
        ),
    )
    provider: Any = st.one_of(
        st.just({"type": "dummy", "faults": ["play", "boot"]}),
        st.just({"type": "vagrant", "memory": "4GiB", "box": "a/b"}),
        st.just({"type": "g5k", "site": "rennes", "cluster": "paravance", "spares": 1,
                 "reservation": "2027-03-01 19:00:00", "job_types": ["night"]}),
        st.just({"type": "vmong5k", "site": "lyon", "cluster": "nova", "walltime": "03:00:00"}),
        st.just({"type": "chameleon", "rc_file": "~/rc", "key_name": "k", "image": "a b",
                 "flavour": "m1"}),
        st.fixed_dictionaries({"type": st.just("local"), "limits": limits},
                              optional={"wan": st.sampled_from(["vde", "netem"]),
                                        "merge_memory": st.booleans()}),
        st.just({"type": "static", "port": 2222, "hosts": {
            site: [f"192.0.{number}.{host}" for host in range(1, 30)]
            for number, site in enumerate(sites)}}),
    )  # fmt: skip
    return {
        "sites": entries,
        "network": network,
        **draw(some_of(
            name=NAMES, description=TEXTS, openstack=cloud, provider=provider,
            master=st.sampled_from(["none", *sites]),
        )),
    }  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(files())
def test_what_is_written_is_read_as_the_same(described: dict[str, Any]) -> None:
    topology = parse_topology(yaml.safe_dump(described, allow_unicode=True))
    written = topology.to_yaml()
    assert parse_topology(written) == topology
    assert parse_topology(written).to_yaml() == written


@pytest.mark.parametrize("path", TOPOLOGIES, ids=lambda path: path.stem)
def test_every_topology_that_ships_writes_itself(path: Path) -> None:
    topology = read_topology(path)
    written = topology.to_yaml()
    assert parse_topology(written) == topology
    assert make_plan(parse_topology(written)).digest == make_plan(topology).digest


@pytest.mark.parametrize("sites", [1, 2, 250])
def test_a_topology_without_a_file_writes_one(sites: int) -> None:
    topology = derive_topology(sites, "50ms")
    assert parse_topology(topology.to_yaml()) == topology
    assert len(topology.to_yaml().splitlines()) < 50, "equal sites are one entry"


def test_long_names_are_written_as_the_group_that_they_are() -> None:
    name = "a" * 30
    topology = parse_topology(f"sites: [{{name: {name}, count: 1}}, {{name: b1}}, {{name: b3}}]")
    assert parse_topology(topology.to_yaml()) == topology
    data = parse_yaml(topology.to_yaml(), "x").data
    assert isinstance(data, dict)
    assert [site["name"] for site in data["sites"]] == [name, "b1", "b3"]


def test_what_no_file_says_is_refused() -> None:
    text = "sites: [{name: a, count: 2}]\nnetwork: {delay: 1ms, rate: 1gbit}"
    topology = parse_topology(text)
    unlimited = type(topology.default)(delay_ms=5.0)
    topology.rules["a1", "a2"] = unlimited  # type: ignore[index]
    with pytest.raises(ValueError, match="a1 to a2: no file says that a link has no limit"):
        topology.to_yaml()


def test_plan_writes_the_topology(tmp_path: Path) -> None:
    done = discovery_xp("plan", "--sites", "8", "--latency", "50ms", "--yaml", home=tmp_path)
    assert done.returncode == 0, done.stderr
    assert parse_topology(done.stdout) == derive_topology(8, "50ms")
    chosen = discovery_xp("plan", "--sites", "2", "--backend", "rome", "--name", "mine", "--yaml",
                          home=tmp_path)  # fmt: skip
    read = parse_topology(chosen.stdout)
    assert (read.name, read.openstack.backend) == ("mine", "rome")
    both = discovery_xp("plan", "--sites", "2", "--yaml", "--json", home=tmp_path)
    assert both.returncode == 2 and "--yaml" in both.stderr
    assert json.loads(discovery_xp("plan", "--sites", "2", "--json", home=tmp_path).stdout)
