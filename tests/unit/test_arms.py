"""Several back ends in one bench, and runs that are made again: whole, on canned hosts."""

import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from discovery_xp import arms, bench
from discovery_xp.bench_request import BenchRequest
from discovery_xp.errors import Failed
from discovery_xp.inputs.scenario import Scenario
from discovery_xp.store import Run
from tests.unit.dummy_life import Life
from tests.unit.test_bench import plan_of

# ---------------------------------------------------------------- the order


def test_each_block_has_every_arm_once_in_an_order_of_its_own() -> None:
    ordered = arms.order(("a", "b", "c"), 5, 40)
    blocks: dict[int, list[str]] = {}
    for block, position, backend in ordered:
        blocks.setdefault(block, []).append(backend)
        assert position == len(blocks[block])
    assert all(sorted(block) == ["a", "b", "c"] for block in blocks.values())
    assert len({tuple(block) for block in blocks.values()}) == 6, "all orders come up"
    assert ordered == arms.order(("a", "b", "c"), 5, 40), "the seed alone decides"
    firsts = Counter(arms.order(("a", "b"), seed, 1)[0][2] for seed in range(400))
    assert 150 < firsts["a"] < 250


def planned(tmp_path: Path, keep: bool = False) -> list[arms.PlannedRun]:
    request = BenchRequest(Scenario("s", "boot", vms=1), "", tmp_path, (), keep)
    return arms.plan_runs(("mysql", "rome"), 3, 2, lambda _backend: (plan_of(2), request))


def test_runs_know_their_place_and_only_the_last_testbed_is_kept(tmp_path: Path) -> None:
    runs = planned(tmp_path, keep=True)
    assert [(each.arm.block, each.arm.position) for each in runs] == [
        (1, 1), (1, 2), (2, 1), (2, 2),
    ]  # fmt: skip
    assert {(each.arm.arms, each.arm.order_seed, each.arm.blocks) for each in runs} == {
        (("mysql", "rome"), 3, 2)
    }
    assert len({each.arm.comparison for each in runs}) == 1
    assert [each.request.keep for each in runs] == [False, False, False, True]


def test_a_run_that_fails_stops_no_other_and_an_interruption_stops_all(tmp_path: Path) -> None:
    met: list[str] = []

    def run_one(each: arms.PlannedRun) -> Run:
        met.append(each.backend)
        if len(met) == 5:
            raise KeyboardInterrupt
        raise Failed("no luck", "try again") if each.backend == "rome" else ValueError("a defect")

    outcomes = list(arms.run_all(planned(tmp_path), run_one))
    assert len(met) == 4
    assert {outcome.failure for outcome in outcomes} == {"no luck; try again", "a defect"}
    with pytest.raises(KeyboardInterrupt):
        list(arms.run_all(planned(tmp_path), run_one))
    assert len(met) == 5


# ---------------------------------------------------------------- whole benches


def both(life: Life, *more: str) -> Any:
    return life.bench(more=("--backend", "rome,mysql", "--placement-seed", "1", *more))


def test_a_bench_of_two_back_ends_makes_a_run_of_each_and_compares_them(life: Life) -> None:
    said = both(life, "--order-seed", "2")
    assert said.code == 0, said.err
    life.requires_nothing_left()
    first, second = life.runs()
    order = [run.load().backend for run in sorted((first, second), key=lambda r: r.load().started)]
    assert sorted(order) == ["mysql", "rome"]
    assert said.out.splitlines()[0] == (
        f"2 runs, by back end (block): {order[0]} (1), {order[1]} (1); order seed 2"
    )
    assert "What differs in what was run" in said.out and "4 VMs, paired" in said.out
    records = {run.load().backend: run.load() for run in (first, second)}
    drawn = {record.drawn for record in records.values()}
    assert len(drawn) == 1 and None not in drawn, "one draw for both"
    for run in (first, second):
        record = run.load()
        assert record.arm is not None and record.arm.arms == ("rome", "mysql")
        assert record.arm.order_seed == 2 and record.arm.position == 1 + order.index(record.backend)
        assert record.recipe is not None and record.recipe.backend == record.backend
        assert record.scenario["placement_seed"] == 1
        assert not [note for note in record.notes if "placement" in note], "VMs are where drawn"
        stored = json.loads((run.folder / "plan.json").read_text())
        text = json.dumps(stored, sort_keys=True)
        assert hashlib.sha256(text.encode()).hexdigest()[:12] == record.plan
        assert run.folder.name.endswith(record.plan)
    hosts = [
        {row["name"]: row["host"] for row in run.table("vms").to_pylist()}
        for run in (first, second)
    ]
    assert hosts[0] == hosts[1] and len(set(hosts[0].values())) == 4
    again = life.xp("compare", str(life.results))
    assert again.code == 0 and "A: rome, 1 run" in again.out


def test_a_failed_arm_stops_no_other(life: Life, monkeypatch: pytest.MonkeyPatch) -> None:
    store_load = bench._store_load

    def fails_on_rome(made: Any) -> None:
        if made.request.backend == "rome":
            raise Failed("a canned failure", "try again")
        store_load(made)

    monkeypatch.setattr(bench, "_store_load", fails_on_rome)
    said = both(life, "--repeat", "2", "--order-seed", "1")
    assert said.code == 1
    statuses = Counter((run.load().backend, run.load().status) for run in life.runs())
    assert statuses == {("mysql", "complete"): 2, ("rome", "partial"): 2}
    assert said.last_line.startswith("2 of 4 runs aren't complete: rome, block 1 of 2: a canned")
    assert "rome and mysql aren't compared: one of them has no run" in said.err
    life.requires_nothing_left()


def test_vms_that_landed_elsewhere_are_a_note_of_the_run(
    life: Life, monkeypatch: pytest.MonkeyPatch
) -> None:
    from discovery_xp.providers.dummy.load import CannedLoad

    ending = CannedLoad._ending

    def elsewhere(load: CannedLoad) -> Any:
        for line in ending(load):
            yield {**line, "host": "site2-compute-2"} if "host" in line else line

    monkeypatch.setattr(CannedLoad, "_ending", elsewhere)
    assert life.bench(more=("--placement-seed", "1")).code == 0
    (note,) = [note for note in life.runs()[0].load().notes if "placement" in note]
    assert note.startswith("3 VMs aren't where the placement drew them: load-site")


def test_a_run_is_made_again_from_its_recipe(life: Life) -> None:
    assert life.bench(more=("--placement-seed", "3", "--probes", "usage,traffic",
                            "--backend", "rome")).code == 0  # fmt: skip
    (old,) = life.runs()
    said = life.xp("reproduce", str(old.folder), "--results", "again")
    assert said.code == 0, said.err
    (new,) = [Run(path.parent) for path in Path("again").rglob("run.json")]
    was, now = old.load(), new.load()
    assert (now.plan, now.scenario, now.probes, now.drawn, now.recipe) == (
        was.plan, was.scenario, was.probes, was.drawn, was.recipe,
    )  # fmt: skip
    assert (old.folder / "topology.yaml").read_text() == (new.folder / "topology.yaml").read_text()
    assert said.out.index("What differs") < said.out.index("Reproduced?")
    assert said.out.splitlines()[-1].startswith("reproduced: ")


def test_a_run_that_comes_out_otherwise_is_code_1(
    life: Life, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert life.bench().code == 0
    (old,) = life.runs()
    monkeypatch.setattr("discovery_xp.providers.dummy.load.BOOT_S", 9.0)
    said = life.xp("reproduce", str(old.folder), "--results", "again")
    assert said.code == 1
    assert "figures weren't reproduced: boot, median, s: 9." in said.last_line
    assert "look at what differs in what was run first" in said.last_line


def test_a_run_before_recipes_is_made_again_from_its_files(life: Life) -> None:
    assert life.bench(more=("--backend", "rome")).code == 0
    (old,) = life.runs()
    values = json.loads((old.folder / "run.json").read_text())
    for key in ("recipe", "arm", "drawn", "time_scale"):
        del values[key]
    values["scenario"].pop("placement_seed")
    (old.folder / "run.json").write_text(json.dumps({**values, "format": 1}))
    said = life.xp("reproduce", str(old.folder), "--results", "again")
    assert said.code == 0, said.err
    assert "the run has no recipe" in said.err
    (new,) = [Run(path.parent) for path in Path("again").rglob("run.json")]
    assert (new.load().backend, new.load().plan) == ("rome", old.load().plan)
    (old.folder / "topology.yaml").unlink()
    lost = life.xp("reproduce", str(old.folder), "--results", "again")
    assert (lost.code, len(lost.err.splitlines())) == (2, 1)
    assert "no topology.yaml, so it isn't known what was run; run 'discovery-xp" in lost.err


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--backend", "rome,oracle"), "'oracle' is not one of mysql, galera, rome"),
        (("--backend", "rome,rome"), "'rome' is there twice"),
        (("--placement-seed", "-1"), "Invalid value for '--placement-seed'"),
        (("--order-seed", "-1", "--repeat", "2"), "Invalid value for '--order-seed'"),
        (("--order-seed", "1"), "--order-seed 1: there is one run, and so no order"),
        (("--repeat", "0"), "Invalid value for '--repeat'"),
    ],
)
def test_bad_input_is_one_line_and_code_2(life: Life, more: tuple[str, ...], words: str) -> None:
    said = life.bench(more=more)
    assert (said.code, said.out) == (2, "")
    assert words in said.err and len(said.err.splitlines()) == 1
    assert life.runs() == []
