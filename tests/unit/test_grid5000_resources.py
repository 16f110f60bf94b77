"""What the clients ask OAR for, read as OAR reads it."""

import pytest

from tests.grid5000.resources import (
    BadRequest,
    Properties,
    format_walltime,
    parse_condition,
    parse_request,
    parse_walltime,
)

NODE: Properties = {
    "type": "default",
    "cluster": "paravance",
    "host": "paravance-1.rennes.grid5000.fr",
    "virtual": "ivt",
    "memnode": 65536,
}


@pytest.mark.parametrize(
    ("text", "levels", "walltime_s"),
    [
        ("/nodes=2", [["nodes=2"]], 3600),
        ("nodes=2,walltime=2", [["nodes=2"]], 7200),
        ("{cluster='a'}/nodes=3+{cluster='b'}/nodes=1,walltime=03:00:00",
         [["nodes=3"], ["nodes=1"]], 10800),
        ("slash_22=1+nodes=1", [["slash_22=1"], ["nodes=1"]], 3600),
        ("{type='kavlan'}/vlan=1+{cluster='a'}nodes=1", [["vlan=1"], ["nodes=1"]], 3600),
        ("{type='kavlan'}/vlan=1++nodes=1", [["vlan=1"], ["nodes=1"]], 3600),
        ("/cluster=1/nodes=2,walltime=0:30", [["cluster=1", "nodes=2"]], 1800),
        ("{network_address in ('a-1.b', 'a-2.b')}/nodes=2,walltime=1:0:1", [["nodes=2"]], 3601),
        ("nodes=ALL+nodes=BEST", [["nodes=None"], ["nodes=0"]], 3600),
    ],
)  # fmt: skip
def test_expressions(text: str, levels: list[list[str]], walltime_s: int) -> None:
    request = parse_request(text)
    found = [[f"{level.name}={level.count}" for level in p.levels] for p in request.pieces]
    assert found == levels
    assert request.walltime_s == walltime_s


@pytest.mark.parametrize(
    "text",
    ["", "nodes", "nodes=0", "nodes=two", "{cluster='a'/nodes=1", "nodes=1,until=3",
     "{cluster='a'}", "{cluster=}/nodes=1", "nodes=1,walltime=1:0:0:0", "{host NOT IN ('a')}/"],
)  # fmt: skip
def test_what_is_no_expression(text: str) -> None:
    with pytest.raises(BadRequest):
        parse_request(text)


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("", True),
        ("cluster='paravance'", True),
        ('cluster = "parasilo"', False),
        ("cluster in ('parasilo', 'paravance')", True),
        ("host NOT IN ('paravance-1.rennes.grid5000.fr')", False),
        ("virtual!='none'", True),
        ("virtual <> 'ivt'", False),
        ("memnode >= 65536 AND memnode < 70000", True),
        ("cluster='a' OR cluster='b' OR virtual='ivt'", True),
        ("(type='default' or type='disk') AND cluster='parasilo'", False),
        ("NOT cluster='parasilo' and host LIKE 'paravance-%'", True),
    ],
)
def test_conditions(text: str, holds: bool) -> None:
    assert parse_condition(text)(NODE) is holds


def test_properties_hold_for_all_pieces() -> None:
    pieces = parse_request("{virtual='ivt'}/nodes=1+nodes=1", "cluster='parasilo'").pieces
    assert not any(piece.where(NODE) for piece in pieces)


def test_a_property_that_is_not_there() -> None:
    with pytest.raises(BadRequest, match='column "colour" does not exist'):
        parse_condition("colour='red'")(NODE)


def test_walltimes() -> None:
    assert [parse_walltime(text) for text in ("2", "2:30", "02:00:05")] == [7200, 9000, 7205]
    assert format_walltime(9005) == "2:30:5"
