"""A small campaign, the same each time; cases that found something once; and planted defects."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from tests.fuzz import campaign, cli_cases
from tests.fuzz.answers import PLANTED, TARGETS
from tests.fuzz.answers.planted import EXPECTED
from tests.fuzz.campaign import Worker
from tests.fuzz.case import Case, case_from_json, read_case
from tests.fuzz.judge import Finding, judge

CORPUS = sorted((Path(__file__).parent / "corpus").glob("*.json"))
SEED = 20261128
SAMPLE = {"yaml": 25, "cli": 40, "runs": 6, "answers": 80}


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    """Loading takes some seconds: all tests here share one."""
    with Worker() as made:
        yield made


def in_words(case: Case, found: list[Finding]) -> str:
    """What is wrong, for the test's message."""
    lines = [f"{each.kind}: {each.signature}\n{each.words}" for each in found]
    return "\n".join([f"{case.name} ({case.about})", *lines])


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.stem)
def test_what_was_found_once_stays_mended(worker: Worker, path: Path) -> None:
    case = read_case(path)
    _, found = campaign.examine(worker, case)
    assert not found, in_words(case, found)


@pytest.mark.parametrize("kind", SAMPLE)
def test_a_sample_finds_nothing(worker: Worker, kind: str) -> None:
    told = []
    for index in range(SAMPLE[kind]):
        case = campaign.make_case(kind, SEED, index)
        _, found = campaign.examine(worker, case)
        if found:
            told.append(in_words(case, found))
    assert not told, "\n\n".join(told)


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_defect_is_found(worker: Worker, name: str) -> None:
    case = Case("planted", name, call=name, told=PLANTED[name].good)
    soon: dict[str, dict[str, float]] = {"spins": {"cpu_s": 1}, "waits": {"wait_s": 2.0}}
    found = judge(case, worker.run(case, **soon.get(name, {})))
    assert {each.kind for each in found} == EXPECTED[name], in_words(case, found)


@pytest.mark.parametrize("name", TARGETS)
def test_a_good_answer_is_taken(worker: Worker, name: str) -> None:
    case = Case("answers", name, call=name, told=TARGETS[name].good)
    [outcome] = worker.run(case)
    assert not judge(case, [outcome]), outcome
    assert outcome["code"] in {"failed task": (1,), "refusal": (2,)}.get(name, (0,)), outcome


def test_a_case_is_the_same_each_time_and_as_json() -> None:
    for kind in campaign.KINDS:
        case = campaign.make_case(kind, 1, 2)
        assert case == campaign.make_case(kind, 1, 2)
        assert case_from_json(case.to_json()) == case
    assert campaign.make_case("yaml", 1, 3) != campaign.make_case("yaml", 2, 3)


def test_every_command_and_option_is_tried() -> None:
    words = {command.words for command in cli_cases.commands()}
    assert {("plan",), ("network", "set"), ("destroy",)} <= words
    tried = set()
    for index in range(1500):
        tried |= set(campaign.make_case("cli", 3, index).steps[0])
    for command in cli_cases.commands():
        assert set(command.words) <= tried
        for parameter in command.parameters:
            if isinstance(parameter, click.Option):
                switches = [*parameter.opts, *parameter.secondary_opts]
                assert any(word.split("=")[0] in switches for word in tried), parameter.name
