"""The Grid'5000 provider's own decisions: who plays which host, what is remembered."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from grid5000.exceptions import Grid5000Error

from discovery_xp.errors import Failed, Refused
from discovery_xp.inputs.platforms import Access, Cluster, G5kProvider
from discovery_xp.inputs.platforms import Job as G5kJob
from discovery_xp.inputs.topology import parse_topology
from discovery_xp.planning.plan import Plan, make_plan
from discovery_xp.providers.grid5000 import api, jobs, nodes, record
from discovery_xp.providers.grid5000.jobs import Job
from discovery_xp.providers.grid5000.nodes import Deployed
from discovery_xp.providers.grid5000.record import Node, Record
from discovery_xp.testbeds.testbed import Testbed

PARAVANCE, GROS = Cluster("rennes", "paravance"), Cluster("nancy", "gros")


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISCOVERY_XP_HOME", str(tmp_path / "home"))


def plan_of(more: str = "") -> tuple[Plan, G5kProvider]:
    plan = make_plan(
        parse_topology(
            "name: t\nsites: [{name: a, count: 2}, {name: b}]\n"
            "provider: {type: g5k, site: rennes, cluster: paravance,"
            f" sites: {{b: {{site: nancy, cluster: gros}}}}{more}}}"
        )
    )
    assert isinstance(plan.platform, G5kProvider)
    return plan, plan.platform


def some_nodes(cluster: Cluster, *numbers: int) -> tuple[Node, ...]:
    return tuple(
        Node(f"{cluster.cluster}-{number}.{cluster.site}.grid5000.fr", f"172.16.0.{number}")
        for number in numbers
    )


def test_nodes_play_hosts_in_the_order_of_their_numbers() -> None:
    plan, provider = plan_of()
    deployed = Deployed(
        {PARAVANCE: some_nodes(PARAVANCE, 2, 3, 9, 10, 11, 12), GROS: some_nodes(GROS, 5, 7)}, ()
    )
    bound, spares = nodes.bind(plan, provider, deployed)
    assert [bound[host.name].fqdn.split(".")[0] for host in plan.hosts] == [
        "paravance-2", "paravance-3", "paravance-9", "paravance-10", "paravance-11", "gros-5",
        "gros-7",
    ]  # fmt: skip
    assert spares == {"rennes paravance": some_nodes(PARAVANCE, 12), "nancy gros": ()}


def test_too_few_nodes_are_named_with_the_number_of_spares_that_would_do() -> None:
    plan, provider = plan_of(", spares: 1")
    deployed = Deployed(
        {PARAVANCE: some_nodes(PARAVANCE, 1, 2, 3), GROS: some_nodes(GROS, 5, 7)},
        ("paravance-4.rennes.grid5000.fr", "paravance-5.rennes.grid5000.fr"),
    )
    with pytest.raises(Failed, match=r"paravance-4.*paravance-5.* didn't come up") as failed:
        nodes.bind(plan, provider, deployed)
    assert "missing: 2 of paravance; write 'spares: 3'" in str(failed.value)


def test_a_spare_plays_the_host_of_a_node_that_is_silent() -> None:
    plan, provider = plan_of()
    played = dict(zip((host.name for host in plan.hosts), some_nodes(PARAVANCE, *range(1, 8)),
                      strict=True))  # fmt: skip
    spares = {"rennes paravance": some_nodes(PARAVANCE, 20), "nancy gros": ()}
    found, left = nodes.replace(plan, provider, played, spares, ["a2-compute-1"])
    assert found["a2-compute-1"] == some_nodes(PARAVANCE, 20)[0]
    assert found["a1-compute-1"] == played["a1-compute-1"]
    assert left["rennes paravance"] == ()
    with pytest.raises(Failed, match=r"b-compute-1 .* doesn't answer, and gros has no spare"):
        nodes.replace(plan, provider, played, spares, ["b-compute-1"])


def test_the_record_survives() -> None:
    testbed = Testbed("kept")
    written = Record(
        jobs=(("rennes", 7),),
        nodes={"a-master-1": some_nodes(PARAVANCE, 1)[0]},
        spares={"rennes paravance": some_nodes(PARAVANCE, 2)},
        lost=("paravance-3.rennes.grid5000.fr",),
        jump_host="alice@access.grid5000.fr",
    )
    record.save(testbed, written)
    assert record.load(testbed) == written
    assert record.load(Testbed("another")) == Record()


@pytest.mark.parametrize("text", ["{", "[]", '{"format": 1, "jobs": 3}', "{}"])
def test_a_damaged_record_is_refused(text: str) -> None:
    testbed = Testbed("damaged")
    record.save(testbed, Record())
    record.path(testbed).write_text(text)
    with pytest.raises(Refused, match="the record is damaged; run 'discovery-xp destroy"):
        record.load(testbed)


def job(**told: object) -> Job:
    usual = {
        "site": "rennes", "uid": 7, "name": "discovery-xp-t", "state": "running",
        "nodes": ("paravance-1", "paravance-2"), "types": ("deploy",), "walltime_s": 7200,
        "started_at": 1000.0, "scheduled_at": 1000.0, "ended_at": None,
    }  # fmt: skip
    return Job(**{**usual, **told})  # type: ignore[arg-type]


def test_a_job_costs_what_its_nodes_were_held() -> None:
    assert job().used_node_hours(now=1000 + 1800) == 1
    assert job().used_node_hours(now=1000 + 99_999) == 4, "not more than its walltime"
    assert job(state="error", ended_at=2800.0).used_node_hours(now=1e9) == 1
    assert job(started_at=None).used_node_hours(now=1e9) == 0


def test_a_job_in_words_says_what_it_costs_and_when_it_ends() -> None:
    words = job().in_words(now=1000 + 1800)
    assert "job 7 on rennes: running, 2 nodes since" in words
    assert "1.0 node-hours used of 4.0, ends at 1970-01-01 03:16" in words
    waits = job(state="waiting", started_at=None, nodes=()).in_words(now=0)
    assert waits == "job 7 on rennes: waiting, expected to start at 1970-01-01 01:16"


# ---------------------------------------------------------------- logins and keys


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(api, "inside_g5k", lambda: False)
    return tmp_path


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "there is no such file"),
        ("a: [", "can't be read"),
        ("- 1", "has no login"),
        ("username: alice", "has no login"),
        ("uri: http://127.0.0.1", "has no username"),
    ],
)
def test_a_login_that_enoslib_would_ignore_is_refused(
    home: Path, text: str | None, words: str
) -> None:
    if text is not None:
        (home / ".python-grid5000.yaml").write_text(text)
    with pytest.raises(Refused, match=words) as refused:
        api.require_login()
    assert "write 'username: ...' and 'password: ...'" in refused.value.remedy


def test_on_a_frontend_no_login_is_needed(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "inside_g5k", lambda: True)
    api.require_login()
    assert api.is_configured()
    assert api.jump_host("auto") is None


def test_a_jump_host_is_taken_as_it_is_written(home: Path) -> None:
    assert api.jump_host("none") is None
    assert api.jump_host("bob@gate.example.org") == "bob@gate.example.org"


def test_a_key_is_there_before_nodes_are_reserved(home: Path) -> None:
    _, provider = plan_of()
    with pytest.raises(Refused, match="has no public key for the nodes; make one with 'ssh-key"):
        nodes.public_key(provider)
    (home / ".ssh").mkdir()
    (home / ".ssh/id.pub").write_text("ssh-ed25519 AAAA\n")
    assert nodes.public_key(provider) is None, "EnOSlib takes them all"
    _, provider = plan_of(f", key: {home}/own")
    with pytest.raises(Refused, match=r"there is no .*/own"):
        nodes.public_key(provider)
    (home / "own").write_text("secret")
    (home / "own.pub").write_text("ssh-ed25519 BBBB\n")
    assert nodes.public_key(provider) == home / "own.pub"


def test_ssh_jumps_to_nodes_but_not_to_the_gateway() -> None:
    _, provider = plan_of(", key: /k")
    testbed = Testbed("jumps")
    testbed.folder.mkdir(parents=True)
    text = nodes.write_ssh_config(testbed, provider, "alice@access.grid5000.fr").read_text()
    assert "Match host *.grid5000.fr,!access.grid5000.fr\n  ProxyJump alice@access" in text
    assert 'IdentityFile "/k"' in text
    assert "ProxyJump" not in nodes.write_ssh_config(testbed, provider, None).read_text()


# ---------------------------------------------------------------- what the API says

OAR = (
    "Request to https://api/oarapi/jobs.json failed with status 400: "
    '{"code": 400, "title": "ERROR: OAR server error", "message": "# Filtering out exotic '
    "resources (one, two, three).\\nReservation not valid --> KO (This reservation could run at "
    '2027-03-01 21:05:00)\\n"}'
)


def test_oar_s_reason_is_found_in_what_it_says() -> None:
    error = Grid5000Error(OAR.encode(), response_code=400)
    words = api.said(error)
    assert words.endswith("(This reservation could run at 2027-03-01 21:05:00) (400)")
    assert "Filtering" not in words


def test_a_long_refusal_keeps_its_end() -> None:
    text = "# chatter\n" * 50 + "[ADMISSION RULE] Error: too much for one day"
    assert api.said(Grid5000Error(text)) == "[ADMISSION RULE] Error: too much for one day"


def test_a_key_that_can_t_be_read_is_told(home: Path) -> None:
    _, provider = plan_of()
    (home / ".ssh").mkdir()
    (home / ".ssh/id.pub").write_bytes(b"\xff\xfe")
    with pytest.raises(Refused, match=r"id.pub can't be read as a public key \(UnicodeDecode"):
        nodes.public_key(provider)


# ---------------------------------------------------------------- values and answers of others


@pytest.mark.parametrize(
    "values",
    [
        {"environment": "{{ lookup('pipe', 'id') }}"},
        {"environment": "x; id"},
        {"access": Access(key="/k/{{ x }}")},
        {"job": G5kJob(project="x' or '1")},
    ],
)
def test_what_grid5000_would_take_apart_is_refused(values: dict[str, Any]) -> None:
    plan, provider = plan_of()
    with pytest.raises(Refused, match="Grid'5000 can't be given") as refused:
        nodes.require_plain(plan, dataclasses.replace(provider, **values))
    assert "\n" not in str(refused.value)
    nodes.require_plain(plan, provider)


@pytest.mark.parametrize("jump", ["a@b\n  ProxyCommand id", "x y", "*"])
def test_a_jump_host_is_one_word(jump: str) -> None:
    _, provider = plan_of()
    with pytest.raises(Refused, match="ssh can't be told of the nodes"):
        nodes.write_ssh_config(Testbed("jumps"), provider, jump)
    with pytest.raises(Refused, match="ssh can't be told of the nodes"):
        nodes.write_ssh_config(
            Testbed("jumps"), dataclasses.replace(provider, access=Access(key='/k"\n  x')), None
        )


@pytest.mark.parametrize(
    "values",
    [
        {"uid": [1]}, {"uid": "x"}, {"uid": "-1"}, {"started_at": "paravance-2"},
        {"started_at": {"a": 1}}, {"started_at": 1e30}, {"started_at": float("nan")},
        {"state": 5}, {"assigned_nodes": 7}, {"assigned_nodes": [7]}, {"walltime": "x"},
        {"types": [{}]}, {"name": ["x"]},
    ],
)  # fmt: skip
def test_what_the_api_says_of_a_job_is_one_or_a_line(values: dict[str, Any]) -> None:
    told = {"uid": 7, "state": "running", "name": "n", "assigned_nodes": ["p-1"], "types": ["x"],
            "walltime": 3600, "started_at": 1709722800, "scheduled_at": 1709722800}  # fmt: skip
    assert jobs._job("rennes", SimpleNamespace(**told)).started_at == 1709722800
    with pytest.raises(Refused, match="the API of rennes tells of something that is no job"):
        jobs._job("rennes", SimpleNamespace(**{**told, **values}))


def test_oars_words_are_text() -> None:
    assert api.said(Grid5000Error(error_message="\x1b[2J KO\u202e")) == "\\x1b[2J KO\\u202e"


def test_the_api_is_not_asked_as_nobody(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "inside_g5k", lambda: False)
    with pytest.raises(Refused, match="there is no such file; write 'username"):
        api.client()
