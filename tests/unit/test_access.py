"""Who reaches emulated hosts: the machine's policy rules, against an ip(8) that remembers them."""

import dataclasses
import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from discovery_xp import experiment
from discovery_xp.cli.main import cli
from discovery_xp.errors import Failed
from discovery_xp.inputs.topology import SshHost, derive_topology
from discovery_xp.planning.plan import Plan, make_plan
from discovery_xp.providers.local import access
from discovery_xp.testbeds.testbed import State, Testbed

PLAN = make_plan(derive_topology(2, None), "mine")
OTHER = make_plan(derive_topology(2, None), "other")
OF_OTHERS = {"priority": 100, "src": "all", "table": "7", "protocol": "17"}


class Ip:
    """In the place of ip(8): rules as it lists them, and the routes it is given."""

    def __init__(self) -> None:
        self.rules: list[dict[str, Any]] = [dict(OF_OTHERS)]
        self.routes: list[dict[str, str]] = []
        self.refuses_after: int | None = None
        self.added = 0

    def __call__(self, command: Sequence[str]) -> str:
        words = list(command)[2:]
        if words == ["-j", "rule", "show"]:
            return json.dumps(self.rules)
        if words == ["-j", "route", "show"]:
            return json.dumps(self.routes)
        action, given = words[1], words[2:]
        pairs: dict[str, str] = dict(itertools.pairwise(given))
        network, _, length = pairs["to"].partition("/")
        rule: dict[str, Any] = {"priority": int(pairs["priority"]), "src": "all",
                                "dst": network, "dstlen": int(length),
                                "protocol": pairs["protocol"]}  # fmt: skip
        if action == "del":
            for found in self.rules:
                if all(found.get(key) == value for key, value in rule.items()):
                    self.rules.remove(found)
                    return ""
            raise Failed("RTNETLINK answers: No such file or directory", "")
        if self.refuses_after is not None and self.added >= self.refuses_after:
            raise Failed("RTNETLINK answers: Operation not supported", "")
        self.added += 1
        if "iif" in pairs:
            rule["iif"] = pairs["iif"]
        for word, key in (("sport", "sport"), ("uidrange", "uid")):
            if word in pairs:
                first, _, last = pairs[word].partition("-")
                rule.update({f"{key}_start": int(first), f"{key}_end": int(last)})
        rule["table" if given[-1] == "main" else "action"] = given[-1]
        self.rules.append(rule)
        return ""

    @property
    def ours(self) -> list[dict[str, Any]]:
        return [rule for rule in self.rules if rule != OF_OTHERS]


@pytest.fixture
def ip(monkeypatch: pytest.MonkeyPatch) -> Ip:
    made = Ip()
    monkeypatch.setattr(access, "run", made)
    monkeypatch.setattr(access, "_client_ports", lambda: (32768, 60999))
    return made


def lead_to(ip: Ip, *plans: Plan) -> None:
    ip.routes = [{"dst": "default", "dev": "eth0"}]
    for number, plan in enumerate(plans):
        ip.routes.append({"dst": str(plan.network), "dev": f"dxp{number:010x}"})


def test_servers_of_this_machine_come_first_then_root_then_nobody() -> None:
    assert access.rules("10.9.0.0/16", (32768, 60999)) == [
        (22200, "iif lo to 10.9.0.0/16 ipproto 6 sport 1-32767 prohibit"),
        (22201, "iif lo to 10.9.0.0/16 ipproto 6 sport 61000-65534 prohibit"),
        (22202, "iif lo uidrange 0-0 to 10.9.0.0/16 lookup main"),
        (22203, "to 10.9.0.0/16 prohibit"),
    ]


def test_where_clients_get_all_ports_only_users_are_told_apart() -> None:
    words = [words for _, words in access.rules("10.9.0.0/16", (1, 65535))]
    assert words == [
        "iif lo uidrange 0-0 to 10.9.0.0/16 lookup main",
        "to 10.9.0.0/16 prohibit",
    ]


def test_rules_are_made_once(ip: Ip) -> None:
    assert access.apply(PLAN, exposed=False)
    made = list(ip.rules)
    assert len(ip.ours) == 4
    assert not access.apply(PLAN, exposed=False)
    assert ip.rules == made


@pytest.mark.parametrize("lost", range(4))
def test_a_lost_rule_is_repaired(ip: Ip, lost: int) -> None:
    access.apply(PLAN, exposed=False)
    whole = sorted(ip.ours, key=str)
    ip.rules.remove(ip.ours[lost])
    assert access.apply(PLAN, exposed=False)
    assert sorted(ip.ours, key=str) == whole


def test_other_ports_for_clients_are_other_rules(ip: Ip, monkeypatch: pytest.MonkeyPatch) -> None:
    access.apply(PLAN, exposed=False)
    monkeypatch.setattr(access, "_client_ports", lambda: (20000, 60999))
    assert access.apply(PLAN, exposed=False)
    assert [rule["sport_end"] for rule in ip.ours if "sport_end" in rule] == [19999, 65534]


def test_exposed_hosts_have_none_and_others_keep_theirs(ip: Ip) -> None:
    access.apply(OTHER, exposed=False)
    access.apply(PLAN, exposed=False)
    assert access.apply(PLAN, exposed=True)
    networks = {f"{rule['dst']}/{rule['dstlen']}" for rule in ip.ours}
    assert networks == {str(OTHER.network)}
    assert OF_OTHERS in ip.rules
    assert not access.apply(PLAN, exposed=True)


def test_rules_whose_interface_is_gone_go_and_no_others(ip: Ip) -> None:
    access.apply(OTHER, exposed=False)
    access.apply(PLAN, exposed=False)
    lead_to(ip, OTHER)
    access.remove_strays()
    assert {f"{rule['dst']}/{rule['dstlen']}" for rule in ip.ours} == {str(OTHER.network)}
    lead_to(ip)
    access.remove_strays()
    assert ip.rules == [OF_OTHERS]


@pytest.mark.parametrize("after", range(4))
def test_a_kernel_without_such_rules_is_told_and_nothing_stays(ip: Ip, after: int) -> None:
    ip.refuses_after = after
    with pytest.raises(Failed, match=r"can't be kept from the hosts: .*--expose"):
        access.apply(PLAN, exposed=False)
    assert ip.rules == [OF_OTHERS]


def test_datagrams_to_this_machine_end_at_the_site() -> None:
    assert access.site_rule(PLAN) == (
        f"priority 100 protocol 222 iif hosts to {PLAN.machine} ipproto 17 prohibit"
    )


# ---------------------------------------------------------------- what the command line says


@pytest.mark.parametrize("command", ["up", "deploy"])
@pytest.mark.parametrize("exposed", [False, True])
def test_the_command_line_says_who_reaches_the_hosts(
    command: str, exposed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool] = []

    def take(_plan: Plan, _progress: object, _keep: bool, expose: bool) -> None:
        seen.append(expose)
        raise Failed("far enough", "")

    monkeypatch.setattr(experiment, "bring_up", take)
    monkeypatch.setattr(experiment, "deploy_cloud", take)
    option = ["--expose"] if exposed else []
    done = CliRunner().invoke(cli, [command, "--sites", "2", *option])
    assert isinstance(done.exception, Failed)
    assert seen == [exposed]


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("provider", ["local", "static"])
def test_up_changes_what_it_can_change(
    provider: str, before: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The firewall of lent hosts is `deploy`'s: the state must not say otherwise."""
    monkeypatch.setenv("DISCOVERY_XP_HOME", str(tmp_path))
    hosts = [
        host
        if provider == "local"
        else dataclasses.replace(host, ssh=SshHost(host.address or "", "root", 22, None))
        for host in PLAN.hosts
    ]
    plan = dataclasses.replace(PLAN, provider=provider, hosts=tuple(hosts))
    Testbed(plan.name).save(State(plan, "up", "2027-01-01T00:00:00Z", exposed=before))

    def acquire(*_: object) -> None:
        raise Failed("far enough", "")

    monkeypatch.setattr(experiment, "_acquire", acquire)
    with pytest.raises(Failed, match="far enough"):
        experiment.bring_up(plan, lambda _stage, _done, _total: None, expose=not before)
    exposed = Testbed(plan.name).load().exposed
    assert exposed is (not before if provider == "local" else before)
