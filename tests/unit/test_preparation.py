"""What is fetched and built once: what it is told to take, and that it happens side by side."""

from __future__ import annotations

import fcntl
import json
import shutil
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from discovery_xp import bench_request, files, software
from discovery_xp.errors import Failed
from discovery_xp.inputs.topology import derive_topology, parse_topology
from discovery_xp.planning.plan import Plan, make_plan
from discovery_xp.providers import preparation
from discovery_xp.providers.local import cgroups, image, recipes
from discovery_xp.providers.local.recipes import Recipe, recipe_of
from discovery_xp.testbeds.testbed import Testbed
from discovery_xp.wheels import Programs
from tests.unit.test_bench import wanted
from tests.unit.test_cli import discovery_xp


def plan(cloud: bool = True) -> Plan:
    return make_plan(derive_topology(2, "10ms"), None, cloud)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache."""
    monkeypatch.setenv("DISCOVERY_XP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def write_tree(recipe: Recipe) -> None:
    folder = image.tree(recipes.key(recipe)).parent
    files.make_folder(folder)
    (folder / "image.json").touch()


def test_the_time_is_that_of_what_is_missing(cache: Path) -> None:
    bare, hosts_only = preparation.needed_s(plan()), preparation.needed_s(plan(cloud=False))
    assert bare > hosts_only > 0
    for environment in software.ENVIRONMENTS:
        files.make_folder(environment.wheels_folder)
    assert 0 < preparation.needed_s(plan()) <= bare
    write_tree(Recipe.HOSTS)
    assert preparation.needed_s(plan(cloud=False)) == 0
    write_tree(Recipe.CLOUD)
    assert preparation.needed_s(plan()) == 0


def test_hosts_that_are_not_there_need_nothing(cache: Path) -> None:
    text = "name: tryout\nsites: [{name: a, controllers: 1, computes: 1}]\nprovider: dummy\n"
    made = make_plan(parse_topology(text), cloud=True)
    assert preparation.needed_s(made) == 0
    preparation.prepare(made, lambda stage, _done, _total: pytest.fail(stage))


def test_the_first_run_and_later_ones_are_told_apart(cache: Path, tmp_path: Path) -> None:
    first = bench_request.foretell(plan(), wanted(tmp_path))[2]
    assert "this first time, when packages are fetched" in first
    write_tree(Recipe.CLOUD)
    later = bench_request.foretell(plan(), wanted(tmp_path))[2]
    assert "first time" not in later
    minutes = [int(line.split(" minutes")[0].split()[-1]) for line in (first, later)]
    assert minutes[0] > minutes[1]
    assert first.endswith(f"later about {minutes[1]}")


def test_only_what_makes_hosts_is_prepared(tmp_path: Path) -> None:
    for words, message in (
        (("status",), "'status' needs no preparation; name 'up', 'deploy' or 'bench'"),
        (("deploy",), "no topology was given"),
        (("bench", "--sites", "0"), "--sites: '0' is not 1 to 250"),
    ):
        done = discovery_xp("prepare", *words, home=tmp_path)
        assert (done.returncode, message in done.stderr) == (2, True), done.stderr


# ---------------------------------------------------------------- the root tree


def write_system(target: Path) -> None:
    """Write what is looked at of a system that mmdebstrap made."""
    for folder in ("etc/ssh", "etc/systemd/system", "var/lib/dpkg"):
        (target / folder).mkdir(parents=True)
    (target / "var/lib/dpkg/status").write_text("Package: systemd\nVersion: 252\n")


@pytest.fixture
def builders(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What builds a tree, each waiting for another one to begin; their names as they end."""
    seen: list[str] = []
    together = threading.Barrier(2, timeout=20)

    def wheels(_programs: Programs) -> None:
        together.wait()
        seen.append("wheels")

    def bootstrap(_testbed: Testbed, _packages: Sequence[str], target: Path, _log: Path) -> None:
        together.wait()
        write_system(target)
        seen.append("tree")

    def install(
        _testbed: Testbed, _building: Path, environment: software.Environment, _programs: Programs
    ) -> None:
        together.wait()
        seen.append(environment.name)

    monkeypatch.setattr(software, "ensure_all_wheels", wheels)
    monkeypatch.setattr(image, "_bootstrap", bootstrap)
    monkeypatch.setattr(image, "_install", install)
    monkeypatch.setattr(cgroups, "kill", lambda *_arguments: None)
    yield seen


def test_fetching_and_building_go_on_at_once(builders: list[str]) -> None:
    stages: list[str] = []
    key = image.ensure(
        Testbed("try"), Recipe.CLOUD, lambda stage, _done, _total: stages.append(stage)
    )
    assert sorted(builders[:2]) == ["tree", "wheels"]
    assert sorted(builders[2:]) == ["openstack", "rally"]
    assert image.is_cached(Recipe.CLOUD)
    assert key == recipes.key(Recipe.CLOUD)
    assert stages[0] == "fetching OpenStack's and Rally's packages meanwhile"


def test_wheels_that_cannot_be_had_leave_no_tree(
    builders: list[str], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_programs: Programs) -> None:
        raise Failed("OpenStack's packages can't be fetched: no route", "try again")

    monkeypatch.setattr(software, "ensure_all_wheels", fail)
    monkeypatch.setattr(image, "_bootstrap", lambda *arguments: write_system(arguments[2]))
    with pytest.raises(Failed, match="can't be fetched: no route"):
        image.ensure(Testbed("try"), Recipe.CLOUD, lambda *_arguments: None)
    assert [path.name for path in (cache / "images").iterdir()] == [".lock"]


def test_a_builder_is_quoted_even_where_it_names_no_error(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("I: one\nE: two\nthree\n")
    assert image._complaint(log, "E:") == "E: two"
    log.write_text("unshare: no\n\n")
    assert image._complaint(log, "E:") == "unshare: no"
    log.write_text("")
    assert image._complaint(log, "E:") == "it says nothing"


def test_that_another_command_builds_is_told(builders: list[str], cache: Path) -> None:
    assert not files.is_locked(cache / "images/.lock")
    files.make_folder(cache / "images")
    stages: list[str] = []
    with (cache / "images/.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert files.is_locked(cache / "images/.lock")

        def progress(stage: str, _done: int, _total: int) -> None:
            stages.append(stage)
            if "another command" in stage:
                fcntl.flock(held, fcntl.LOCK_UN)

        image.ensure(Testbed("try"), Recipe.CLOUD, progress)
    assert "the hosts' root tree, which another command builds" in stages


# ---------------------------------------------------------------- without MariaDB


def cloud_on(backend: str) -> Plan:
    text = f"sites: [{{name: a}}]\nopenstack: {{backend: {backend}}}\n"
    return make_plan(parse_topology(text), cloud=True)


@pytest.mark.parametrize(
    ("made", "recipe"),
    [
        (plan(cloud=False), Recipe.HOSTS),
        (cloud_on("mysql"), Recipe.CLOUD),
        (cloud_on("galera"), Recipe.CLOUD),
        (cloud_on("rome"), Recipe.CLOUD_WITHOUT_MARIADB),
    ],
)
def test_hosts_have_mariadb_where_it_holds_databases(made: Plan, recipe: Recipe) -> None:
    assert recipe_of(made) is recipe


def test_what_has_no_mariadb_is_a_layer_above_what_has(
    builders: list[str], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Sequence[str]] = []

    def contained(_testbed: Testbed, _group: str, command: Sequence[str], _log: Path) -> int:
        asked.append(command)
        layer = Path(command[5])
        (layer / "tree/var/lib/dpkg").mkdir(parents=True)
        (layer / "tree/var/lib/dpkg/status").write_text("Package: systemd\nVersion: 252\n")
        return 0

    monkeypatch.setattr(image, "_contained", contained)
    wanted = Recipe.CLOUD_WITHOUT_MARIADB
    key = image.ensure(Testbed("try"), wanted, lambda *_arguments: None)
    whole, layer = image.tree(recipes.key(Recipe.CLOUD)), image.tree(key)
    assert image.trees(key) == (layer, whole)
    assert image.trees(recipes.key(Recipe.CLOUD)) == (whole,)
    (command,) = asked
    assert str(whole) in command and {"mariadb-server", "galera-arbitrator-4"} <= {*command}
    assert sorted(path.name for path in layer.parent.iterdir()) == ["image.json", "tree"]
    assert len(builders) == 4, "the whole tree is built first"
    assert image.is_cached(wanted)
    assert not image.serves(key, Recipe.CLOUD), "hosts without MariaDB can't run it"
    assert not image.serves(recipes.key(Recipe.CLOUD), wanted)
    assert image.serves(key, wanted) and image.serves(key, Recipe.HOSTS)
    assert image.ensure(Testbed("try"), wanted, lambda *_arguments: None) == key
    assert len(asked) == 1, "it is built once"
    shutil.rmtree(whole.parent)
    assert not image.is_cached(wanted) and not image.serves(key, wanted)


def test_a_layer_takes_no_time_where_the_tree_is_there(cache: Path) -> None:
    assert preparation.needed_s(cloud_on("rome")) == preparation.needed_s(cloud_on("mysql")) > 60
    write_tree(Recipe.CLOUD)
    assert 0 < preparation.needed_s(cloud_on("rome")) < 10


def test_a_tree_is_kept_as_long_as_a_layer_above_it(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = cache / "images"
    for name, base in (("1" * 12, None), ("2" * 12, "1" * 12), ("3" * 12, None)):
        files.make_folder(images / name)
        (images / name / "image.json").write_text(json.dumps({"base": base} if base else {}))
    monkeypatch.setattr(image, "testbeds", list)
    image._prune(images, keep={"2" * 12})
    assert sorted(path.name for path in images.iterdir()) == ["1" * 12, "2" * 12]
