"""The catalogue of what both ends of ssh agree on: complete, and the one place of each port."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from discovery_xp.onhost import catalogue
from discovery_xp.planning import databases, layout, ports

ROOT = Path(__file__).parents[2]
HOME = ROOT / "discovery_xp/onhost/catalogue.py"
# Numbers that are no ports: (file, number) and what it counts there.
OTHER_NUMBERS = {
    ("discovery_xp/store/tables.py", 5000): "characters of a cell",
    ("discovery_xp/store/runs.py", 5000): "parts of a table",
    ("discovery_xp/deployment/timings.py", 5000): "milliseconds between RabbitMQ's statistics",
    # In the text that nft is given on a host.
    ("playbooks/library/probes.py", 22): "ssh, which no probe counts",
}


def known_ports() -> set[int]:
    listed = {port for each in ports.LISTENERS for port in each.ports}
    return listed | {unit.port for unit in catalogue.UNITS.values() if unit.port is not None}


def numbers_of(path: Path) -> Iterator[int]:
    """Every number that a file has, as a value or within a text."""
    text = path.read_text().replace("Grid'5000", "")
    if path.suffix != ".py":
        yield from numbers_in(text)
        return
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Constant) and type(node.value) is int:
            yield node.value
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from numbers_in(node.value)


def numbers_in(text: str) -> Iterator[int]:
    """Numbers that stand for themselves: no parts of words, addresses or fractions."""
    for found in re.findall(r"(?<![\w.])(?:0|[1-9](?:_?[0-9])*)(?![\w%]|\.[0-9])", text):
        yield int(found)


def files() -> Iterator[Path]:
    for folder in ("discovery_xp", "playbooks", "scenarios"):
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in (".py", ".yml", ".yaml", ".j2", ".sh", ".cfg") and path != HOME:
                yield path


def test_a_port_is_written_in_the_catalogue_alone() -> None:
    known = known_ports()
    elsewhere = {
        (str(path.relative_to(ROOT)), number)
        for path in files()
        for number in numbers_of(path)
        if number in known
    }
    assert elsewhere - OTHER_NUMBERS.keys() == set()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.py", "PORT = 3306\n"),
        ("a.py", "x = {'nova': (8774, 1)}\n"),
        ("a.py", "url = f'http://{host}:5000/v3'\n"),
        ("a.yml", "ports: {nova-api: 8774}\n"),
        ("a.yml", 'conf: "-p 11211\\n-U 0"\n'),
        ("a.yml", "listeners.tcp.1 = {{ own_address }}:5672\n"),
    ],
)
def test_a_port_that_is_typed_elsewhere_is_found(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    assert set(numbers_of(tmp_path / name)) & known_ports()


def test_words_that_only_look_like_ports_are_none(tmp_path: Path) -> None:
    text = '"""Nodes of Grid\'5000, 10.0.0.22, 0.22, port22, 5000ms."""\n'
    (tmp_path / "a.py").write_text(text)
    assert not set(numbers_of(tmp_path / "a.py")) & known_ports()


def test_a_bare_python_can_import_it() -> None:
    # As on a host: nothing of this project's environment, no package around it.
    script = f"import runpy; runpy.run_path({str(HOME)!r}, run_name='catalogue')"
    isolated = [sys.executable, "-I", "-S", "-c", script]
    subprocess.run(isolated, check=True, timeout=60)


def test_every_unit_is_of_a_component_and_runs_somewhere() -> None:
    assert {unit.component for unit in catalogue.UNITS.values()} <= {*catalogue.COMPONENTS}
    placed = {unit for units in layout.UNITS_BY_ROLE.values() for unit in units}
    placed.add(layout.UNIT_ABOVE_CELLS)
    redis = {catalogue.redis_unit(n).name for n in range(catalogue.REDIS_MAX_REPLICAS + 1)}
    galera = {"mariadb", "galera-check", "garb", "haproxy"}
    assert placed | redis | galera == catalogue.UNITS.keys()


def test_every_api_is_served_over_http() -> None:
    for api in catalogue.APIS.values():
        assert catalogue.UNITS[api.unit].is_http, api.kind
    assert {api.unit for api in catalogue.APIS.values()} == {
        unit.name
        for unit in catalogue.UNITS.values()
        if unit.is_http and unit.name != "galera-check"
    }
    url = catalogue.APIS["compute"].url("10.0.0.1")
    assert url == f"http://10.0.0.1:{catalogue.NOVA_PORT}/v2.1"


def test_only_whom_nova_sends_messages_has_a_queue() -> None:
    queues = {unit.name: unit.queue("h") for unit in catalogue.UNITS.values() if unit.topic}
    assert queues == {
        "nova-conductor": "conductor.h",
        "nova-super-conductor": "conductor.h-super",
        "nova-scheduler": "scheduler.h",
        "nova-compute": "compute.h",
    }
    assert catalogue.UNITS["nova-api"].queue("h") is None


def test_every_database_is_owned_by_a_component() -> None:
    assert {*databases.OWNERS.values()} <= {*catalogue.COMPONENTS}
