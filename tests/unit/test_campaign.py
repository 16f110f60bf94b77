"""Campaigns' files: their points, and every problem with its place in the campaign's own lines."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import jsonschema
import pytest
import yaml

from discovery_xp.campaigns.schedule import jobs
from discovery_xp.errors import InvalidInput
from discovery_xp.inputs.campaign import parse_campaign, read_campaign
from discovery_xp.inputs.campaign_file import MAX_POINTS, campaign_schema
from discovery_xp.inputs.campaign_values import Campaign

FOLDER = Path(__file__).parents[2] / "campaigns"
SHIPPED = sorted(FOLDER.glob("*.yaml"))

PAPER = """\
name: paper
seed: 7
factors:
  store:
    MariaDB: {backend: mysql}
    one Redis: {backend: rome, topology: {openstack: {rome: {store: server}}}}
    four: {backend: rome, data: 4, topology: {openstack: {rome: {store: cluster, replicas: 1}}}}
parts:
  - name: one-site
    set: {sites: 1}
    over: {store: all}
    repeats: 3
  - name: sites
    over: {backend: [mysql, galera, rome], sites: [2, 8], latency: [10ms, 50ms]}
    share: [latency]
    exclude:
      - {levels: {backend: galera, latency: 50ms}, because: it had synchronisation issues}
"""


def problems_of(text: str) -> str:
    with pytest.raises(InvalidInput) as caught:
        parse_campaign(text, "c.yaml")
    return str(caught.value)


def changed(old: str, new: str) -> str:
    assert PAPER.count(old) == 1, old
    return PAPER.replace(old, new)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_campaign_is_read_and_fits_the_schema(path: Path) -> None:
    campaign = read_campaign(path)
    assert campaign.name == path.stem
    schema = json.loads(json.dumps(campaign_schema()))
    jsonschema.validate(yaml.safe_load(path.read_text()), schema)


def test_the_readme_names_every_file_and_key() -> None:
    readme = (FOLDER / "README.md").read_text()
    for path in SHIPPED:
        assert f"`{path.name}`" in readme
    schema = campaign_schema()
    for keys in (schema, schema["$defs"]["PartEntry"], schema["$defs"]["ExcludeEntry"]):
        for key in keys["properties"]:
            assert f"`{key}`" in readme, key


def test_a_level_sets_what_it_says_and_nothing_else() -> None:
    points = {point.words: point for point in parse_campaign(PAPER).points}
    four = points["sites 1, store four"]
    assert (four.topology.openstack.backend, four.topology.openstack.rome.replicas) == ("rome", 1)
    assert [site.data for site in four.topology.sites] == [4]
    assert four.repeats == 3
    far = points["backend mysql, sites 8, latency 50ms"]
    assert (len(far.topology.sites), far.topology.default.delay_ms) == (8, 50.0)
    assert far.topology.sites[0].computes == 6, "as in the paper, unless it is said otherwise"
    assert (far.scenario.kind, far.scenario.vms, far.repeats) == ("boot", 500, 1)
    assert {point.topology.name for point in points.values()} == {"paper"}


def test_what_is_left_out_says_why() -> None:
    campaign = parse_campaign(PAPER)
    assert len(campaign.points) == 3 + 12 - 2
    assert {each.because for each in campaign.excluded} == {"it had synchronisation issues"}
    assert [dict(each.levels)["sites"] for each in campaign.excluded] == ["2", "8"]


def test_points_can_be_listed_and_are_there_once() -> None:
    text = changed("    repeats: 3\n", "    points: [{sites: 8, latency: 50ms, backend: mysql}]\n")
    campaign = parse_campaign(text)
    wanted = {"sites": "8", "latency": "50ms", "backend": "mysql"}
    (both,) = [point for point in campaign.points if dict(point.levels) == wanted]
    assert both.part == "one-site", "the first part that asks for it has it"
    assert len(campaign.points) == 3 + 12 - 2


def test_the_same_point_has_the_same_digest_whatever_the_campaign_is_called() -> None:
    first, second = parse_campaign(PAPER), parse_campaign(changed("name: paper", "name: other"))
    assert [point.digest for point in first.points] == [point.digest for point in second.points]
    assert len({point.digest for point in first.points}) == len(first.points)


def test_a_scenario_and_a_topology_may_be_files(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text("kind: boot-and-list\nvms: 7\n")
    text = changed("seed: 7", "topology: one-site\nscenario: own.yaml")
    path = tmp_path / "c.yaml"
    path.write_text(text.replace("[2, 8]", "[2]"))
    campaign = read_campaign(path)
    assert {point.scenario.kind for point in campaign.points} == {"boot-and-list"}
    assert {point.scenario.vms for point in campaign.points} == {7}


PROBLEMS = [
    ("[10ms, 50ms]", "[10ms, 50]", "c.yaml:14: network.delay: '50' has no unit; write '50ms'"),
    ("galera, rome]", "galera, rom]", "c.yaml:14: openstack.backend: 'rom' is unknown; did you"),
    ("data: 4", "data: x", "c.yaml:7: sites[0].data: 'x' is not a whole number"),
    ("replicas: 1", "replicas: 7", "c.yaml:7: openstack.rome.replicas: '7' is out of range"),
    ("[2, 8]", "[0, 8]", "c.yaml:14: sites[0].count: '0' is out of range"),
    ("repeats: 3", "repeats: x", "c.yaml:12: parts[0].repeats: 'x' is not a whole number"),
    ("[latency]", "[latenc]", "c.yaml:15: parts[1].share[0]: 'latenc' doesn't vary"),
    ("seed: 7", "topology: x.yaml", "x.yaml: no such file"),
    ("seed: 7", "scenario: {kind: boots}", "c.yaml:2: kind: 'boots' is unknown"),
    ("seed: 7", "seed: 7\nseeds: 8", "c.yaml:3: seeds: unknown key; did you mean 'seed'?"),
    ("store: all", "store: [four, four]", "c.yaml:11: parts[0].over.store[1]: 'four' is there tw"),
    ("store: all", "store: [five]", "c.yaml:11: parts[0].over.store[0]: 'five' is unknown"),
    ("store: all", "store: al", "c.yaml:11: parts[0].over.store: 'al' is no list of levels"),
    ("store: all", "stores: [four]", "parts[0].over.stores[0]: 'stores' is unknown; did you mean"),
    ("store: all", "store: []", "c.yaml:11: parts[0].over.store: has no levels"),
    ("{backend: mysql}", "{back: mysql}", "c.yaml:5: factors.store.MariaDB.back: 'back' is unkno"),
    ("  store:", "  backend:", "c.yaml:4: factors.backend: is a factor that is there"),
    ("set: {sites: 1}", "set: {sites: [1]}", "c.yaml:10: parts[0].set.sites: '[1]' is not a level"),
    ("latency: 50ms}, b", "latency: 5ms}, b", "c.yaml:17: parts[1].exclude[0]: leaves no point o"),
    ("levels: {backend: galera, latency: 50ms}", "levels: {}", "exclude[0].levels: names no level"),
    ("name: sites", "name: one-site", "c.yaml:13: parts[1].name: a second part 'one-site'"),
    ("name: paper", "name: 'a b'", "c.yaml:1: name: 'a b' is not a name"),
    ("set: {sites: 1}", "set: {topology: 3}", "c.yaml:10: parts[0].set.topology: '3' is not a p"),
    ("seed: 7", "topology: {sites: [{name: a}, {name: b}]}", "the topology has 2 kinds of sites"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "words"), PROBLEMS, ids=[new for _, new, _ in PROBLEMS])
def test_a_problem_names_the_campaigns_line(old: str, new: str, words: str) -> None:
    said = problems_of(changed(old, new))
    assert words in said, said
    assert all("; " in line for line in said.splitlines()), said


def test_all_problems_are_told_at_once_and_once() -> None:
    text = changed("[10ms, 50ms]", "[10ms, 50]").replace("data: 4", "data: x")
    said = problems_of(text.replace("repeats: 3", "repeats: 1")).splitlines()
    assert len([line for line in said if "'50' has no unit" in line]) == 1, "of six points"
    assert len([line for line in said if "'x' is not a whole number" in line]) == 1


@pytest.mark.parametrize("text", ["", "[]", "parts: []", "parts: [{name: a}]", "parts: 3", "a: b"])
def test_what_is_no_campaign_is_refused(text: str) -> None:
    assert "; " in problems_of(text)


def test_too_many_points_are_refused_before_they_are_made() -> None:
    levels = ", ".join(str(number) for number in range(1, 251))
    text = f"parts: [{{name: a, over: {{vms: [{levels}], sites: [{levels}]}}}}]"
    assert f"62500 combinations; write at most {MAX_POINTS} points" in problems_of(text)


# ---------------------------------------------------------------- the order


def order_of(campaign: Campaign) -> list[tuple[str, int]]:
    return [job.key for job in jobs(campaign)]


def test_each_block_has_each_point_once_in_an_order_of_its_own() -> None:
    campaign = parse_campaign(PAPER.replace("seed: 7", "seed: 7\nrepeats: 2"))
    order = order_of(campaign)
    assert len(order) == len(set(order)) == sum(point.repeats for point in campaign.points)
    assert [block for _, block in order] == sorted(block for _, block in order)
    first, second = ([digest for digest, number in order if number == block] for block in (1, 2))
    assert sorted(first) == sorted(second) and first != second
    assert order_of(campaign) == order, "the seed says it"
    other = parse_campaign(PAPER.replace("seed: 7", "seed: 8\nrepeats: 2"))
    assert order_of(other) != order


def test_what_comes_first_is_made_before_the_rest_of_its_block() -> None:
    text = """
repeats: 2
topology: {sites: [{name: a, computes: 1}]}
parts:
  - {name: rest, over: {vms: [1, 2, 3, 4, 5, 6]}}
  - {name: corners, first: true, over: {vms: [6, 7, 8]}}
"""
    order = [(job.block, job.point.levels["vms"]) for job in jobs(parse_campaign(text))]
    for block in (1, 2):
        made = [vms for number, vms in order if number == block]
        assert set(made[:3]) == {"6", "7", "8"}, "6 is of both parts"
        assert set(made[3:]) == {"1", "2", "3", "4", "5"}
        assert made[3:] != sorted(made[3:]), "the rest is drawn as ever"


def test_points_that_may_share_a_cloud_stay_together() -> None:
    made = jobs(parse_campaign(PAPER))
    pairs = [pair for pair in itertools.pairwise(made) if pair[0].shares_with(pair[1])]
    assert len(pairs) == 4, "two latencies of two numbers of sites on MariaDB and on ROME"
    for one, other in pairs:
        assert one.point.levels["backend"] == other.point.levels["backend"]
        assert one.point.levels["latency"] != other.point.levels["latency"]
