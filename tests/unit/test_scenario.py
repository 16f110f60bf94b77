import dataclasses
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from discovery_xp.errors import InvalidInput
from discovery_xp.inputs.scenario import (
    KINDS,
    READS,
    Scenario,
    ScenarioFile,
    parse_scenario,
    read_scenario,
    scenario_schema,
)

FOLDER = Path(__file__).parents[2] / "scenarios"
SHIPPED = sorted(FOLDER.glob("*.yaml"))


def problems_of(text: str) -> list[str]:
    with pytest.raises(InvalidInput) as caught:
        parse_scenario(text, "s.yaml")
    return [str(problem) for problem in caught.value.problems]


def schema() -> Any:
    return json.loads(json.dumps(scenario_schema()))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_scenario_is_read_and_fits_the_schema(path: Path) -> None:
    scenario = read_scenario(path)
    assert scenario.name == path.stem
    jsonschema.validate(yaml.safe_load(path.read_text()), schema())


def test_every_kind_is_shipped_and_the_readme_names_every_file_and_key() -> None:
    assert {read_scenario(path).kind for path in SHIPPED} == set(KINDS)
    readme = (FOLDER / "README.md").read_text()
    for path in SHIPPED:
        assert f"`{path.name}`" in readme
    for key in ScenarioFile.model_json_schema(by_alias=True)["properties"]:
        assert f"`{key}`" in readme, key


def test_the_shipped_500_are_the_papers() -> None:
    scenario = read_scenario(FOLDER / "boot-500.yaml")
    assert (scenario.kind, scenario.vms, scenario.concurrency) == ("boot", 500, None)
    assert scenario.regions is None and scenario.starts_on == "master"


def test_defaults() -> None:
    assert parse_scenario("kind: boot", "my-first.yaml") == Scenario("my-first", "boot")
    assert Scenario("s", "boot").count == 500
    assert Scenario("s", "reads").count == 100


EVERY_KEY = """
name: mine
description: all of it
kind: reads
iterations: 7
concurrency: 3
flavor: m1.small
image: cirros
spread: [site2, site1-controller-2]
from: sites
poll_interval: 500ms
vm_timeout: 5min
run_timeout: 1h
warm_up: 4
reads: [show, list]
repeats: 2
"""


def test_every_key_is_kept() -> None:
    assert parse_scenario(EVERY_KEY) == Scenario(
        name="mine",
        kind="reads",
        iterations=7,
        concurrency=3,
        flavor="m1.small",
        image="cirros",
        regions=("site2", "site1-controller-2"),
        starts_on="sites",
        poll_interval_s=0.5,
        vm_timeout_s=300.0,
        run_timeout_s=3600.0,
        warm_up=4,
        reads=("show", "list"),
        repeats=2,
        description="all of it",
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_scenario_can_be_written_and_read_again(kind: str) -> None:
    for scenario in (
        parse_scenario(f"kind: {kind}", "s.yaml"),
        dataclasses.replace(
            parse_scenario(
                f"kind: {kind}\ndescription: 'é: x'\nconcurrency: 3\nfrom: sites", "s.yaml"
            ),
            regions=("site2", "site1"),
            run_timeout_s=4000.5,
        ),
    ):
        assert parse_scenario(scenario.to_yaml(), "other.yaml") == scenario


def test_no_warm_up_is_not_the_default_warm_up() -> None:
    assert parse_scenario("kind: boot").warm_up is None
    assert parse_scenario("kind: boot\nwarm_up:").warm_up is None
    assert parse_scenario("kind: boot\nwarm_up: 0").warm_up == 0


def test_it_is_plain_values_for_json() -> None:
    data = json.loads(json.dumps(parse_scenario(EVERY_KEY).to_json()))
    assert data["regions"] == ["site2", "site1-controller-2"]
    values: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in data.items()
    }
    assert Scenario(**values) == parse_scenario(EVERY_KEY)


BAD = [
    # (text, the one problem: line, key, value and remedy)
    ("", "s.yaml:1: is not a scenario; write a mapping with 'kind:', see scenarios/README.md"),
    (
        "- boot",
        "s.yaml:1: is not a scenario; write a mapping with 'kind:', see scenarios/README.md",
    ),
    (
        "vms: 3",
        "s.yaml:1: 'kind' is missing; add 'kind: ...', one of 'boot', 'boot-and-delete', "
        "'boot-and-list', 'reads' or 'authenticate'",
    ),
    ("kind: bot", "s.yaml:1: kind: 'bot' is unknown; did you mean 'boot'?"),
    (
        "kind: x",
        "s.yaml:1: kind: 'x' is unknown; write one of 'boot', 'boot-and-delete', "
        "'boot-and-list', 'reads' or 'authenticate'",
    ),
    ("kind: boot\nvm: 3", "s.yaml:2: vm: unknown key; did you mean 'vms'?"),
    ("kind: boot\nvms: 0", "s.yaml:2: vms: '0' is out of range; write 1 to 100000"),
    ("kind: boot\nvms: many", "s.yaml:2: vms: 'many' is not a whole number; write e.g. 500"),
    ("kind: boot\nvms: true", "s.yaml:2: vms: 'True' is not a whole number; write e.g. 500"),
    ("kind: boot\nvms: 1.5", "s.yaml:2: vms: '1.5' is not a whole number; write e.g. 500"),
    (
        "kind: boot\nconcurrency: most",
        "s.yaml:2: concurrency: 'most' is not a whole number or 'all'; write e.g. 20 or 'all'",
    ),
    (
        "kind: boot\nconcurrency: 0",
        "s.yaml:2: concurrency: '0' is out of range; write 1 to 100000",
    ),
    ("kind: boot\npoll_interval: 2", "s.yaml:2: poll_interval: '2' has no unit; write '2s'"),
    (
        "kind: boot\npoll_interval: soon",
        "s.yaml:2: poll_interval: 'soon' is not a time; write a number and one of ms, s, min, h",
    ),
    (
        "kind: boot\npoll_interval: 2m",
        "s.yaml:2: poll_interval: '2m' has the unknown unit 'm'; write one of ms, s, min, h",
    ),
    (
        "kind: boot\npoll_interval: 10ms",
        "s.yaml:2: poll_interval: '10ms' is out of range; write '0.1s' to '24h'",
    ),
    (
        "kind: boot\nrun_timeout: 25h",
        "s.yaml:2: run_timeout: '25h' is out of range; write '1s' to '24h'",
    ),
    (
        "kind: boot\nrun_timeout: 1min",
        "s.yaml:2: run_timeout: the run (60s) is over before the time of a VM (1800s); "
        "write a run_timeout of at least the vm_timeout",
    ),
    (
        "kind: boot\nvm_timeout: 2h",
        "s.yaml:2: vm_timeout: the run (3600s) is over before the time of a VM (7200s); "
        "write a run_timeout of at least the vm_timeout",
    ),
    (
        "kind: boot\nvm_timeout: 5s\npoll_interval: 5s",
        "s.yaml:3: poll_interval: the time of a VM (5s) is over before it is looked at; "
        "write a poll_interval under the vm_timeout",
    ),
    (
        "kind: boot\nspread: all",
        "s.yaml:2: spread: 'all' is no way to spread the load; "
        "write 'controllers', or a list of regions such as [site1, site2]",
    ),
    (
        "kind: boot\nspread: []",
        "s.yaml:2: spread: '[]' is no way to spread the load; "
        "write 'controllers', or a list of regions such as [site1, site2]",
    ),
    (
        "kind: boot\nspread:\n  - a\n  - a",
        "s.yaml:4: spread[1]: 'a' is named twice; name each region once",
    ),
    ("kind: boot\nspread: [1]", "s.yaml:2: spread[0]: '1' is not a region; write e.g. site1"),
    (
        "kind: boot\nfrom: home",
        "s.yaml:2: from: 'home' is unknown; write one of 'master' or 'sites'",
    ),
    (
        "kind: boot\ndelete_after: later",
        "s.yaml:2: delete_after: 'later' is neither true nor false; write 'true' or 'false'",
    ),
    (
        "kind: boot\nflavor: 1",
        "s.yaml:2: flavor: '1' is not text; write a word, in quotes if need be",
    ),
    (
        "kind: boot\nname: A_b",
        "s.yaml:2: name: 'A_b' is not a name; "
        "write 1 to 30 of a-z, 0-9 and '-', a letter first, no '-' last",
    ),
    (
        "kind: boot\niterations: 3",
        "s.yaml:2: iterations: means nothing to 'boot'; write 'vms'",
    ),
    ("kind: reads\nvms: 3", "s.yaml:2: vms: means nothing to 'reads'; write 'iterations'"),
    (
        "kind: boot\nrepeats: 3",
        "s.yaml:2: repeats: means nothing to 'boot'; leave it out (it is for 'reads')",
    ),
    (
        "kind: boot-and-delete\ndelete_after: false",
        "s.yaml:2: delete_after: means nothing to 'boot-and-delete'; "
        "leave it out (it is for 'boot', 'boot-and-list')",
    ),
    (
        "kind: authenticate\nwarm_up: 1",
        "s.yaml:2: warm_up: means nothing to 'authenticate'; "
        "leave it out (it is for 'boot', 'boot-and-delete', 'boot-and-list', 'reads')",
    ),
    (
        "kind: reads\nreads:\n  - list\n  - shw",
        "s.yaml:4: reads[1]: 'shw' is unknown; did you mean 'show'?",
    ),
    (
        "kind: reads\nreads: list",
        f"s.yaml:2: reads: 'list' is not a list of reads; write some of [{', '.join(READS)}]",
    ),
    (
        "kind: reads\nwarm_up: 0",
        "s.yaml:2: warm_up: without any VM there is none to 'show'; "
        "write at least 1, or leave 'show' out of 'reads'",
    ),
    ("kind: boot\nkind: boot", "s.yaml:2: kind: is written twice (first on line 1); keep one"),
]


@pytest.mark.parametrize(("text", "problem"), BAD, ids=[problem[:48] for _, problem in BAD])
def test_what_is_wrong_is_one_problem_with_place_value_and_remedy(text: str, problem: str) -> None:
    assert problems_of(text) == [problem]


def test_all_problems_are_found_at_once() -> None:
    found = problems_of(
        "kind: boot\nvms: no\nconcurrency: -1\npoll_interval: 5\nvm_timeout: 2h\n"
        "spread: [a, a]\nrepeats: 2\ncolour: red\n"
    )
    assert [int(problem.split(":")[1]) for problem in found] == [2, 3, 4, 5, 6, 7, 8]


def test_a_file_that_is_not_there_is_a_problem_of_scenarios(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput) as caught:
        read_scenario(tmp_path / "none.yaml")
    assert "such as those under scenarios/" in str(caught.value)
    assert "topolog" not in str(caught.value)


def test_yaml_keeps_what_was_written() -> None:
    # YAML 1.1 would read the first as a boolean and the second as an octal number.
    assert parse_scenario("kind: boot\nflavor: on\nimage: '08'").flavor == "on"


GOOD = ["kind: boot", EVERY_KEY, "kind: boot\nconcurrency: all", "kind: authenticate",
        "kind: reads\nwarm_up: 0\nreads: [list]"]  # fmt: skip


@pytest.mark.parametrize("text", GOOD)
def test_the_schema_accepts_what_the_reader_accepts(text: str) -> None:
    parse_scenario(text)
    jsonschema.validate(yaml.safe_load(text), schema())


@pytest.mark.parametrize(
    "text",
    ["kind: bot", "vms: 3", "kind: boot\nvms: 0", "kind: boot\nx: 1", "kind: boot\nspread: []",
     "kind: boot\npoll_interval: 2m", "kind: boot\niterations: 3", "kind: reads\nreads: []",
     "kind: boot\nconcurrency: most", "kind: boot-and-delete\ndelete_after: true"],
)  # fmt: skip
def test_the_schema_refuses_what_the_reader_refuses(text: str) -> None:
    assert problems_of(text)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(yaml.safe_load(text), schema())
