"""Adapters of EnOSlib's other providers: their configurations are what its schemas want."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from discovery_xp import providers
from discovery_xp.errors import Failed, Refused
from discovery_xp.inputs.topology import parse_topology
from discovery_xp.planning.plan import Plan, make_plan
from discovery_xp.providers import enoslib_machines
from discovery_xp.providers.enoslib_machines import address_in, configuration, enoslib_configuration
from discovery_xp.testbeds.testbed import Testbed

SITES = "name: t\nsites: [{name: a, computes: 2}, {name: b}]\n"
PROVIDERS = {
    "vmong5k": "type: vmong5k, site: rennes, cluster: paravance, cores: 4, walltime: '03:00:00',"
    " project: lab, job_types: [night], sites: {b: {site: nancy, cluster: gros}}",
    "vagrant": "type: vagrant, memory: 3GiB",
    "kvm": "type: chameleon, kind: kvm, rc_file: rc.sh, key_name: k, image: debian, flavour: m1",
    "baremetal": "type: chameleon, rc_file: rc.sh, key_name: k, image: debian, flavour: haswell",
}


def plan_of(name: str) -> Plan:
    return make_plan(parse_topology(f"{SITES}provider: {{{PROVIDERS[name]}}}"))


@pytest.mark.parametrize("name", PROVIDERS)
def test_enoslib_s_schema_is_content(name: str) -> None:
    plan = plan_of(name)
    made = enoslib_configuration(plan)
    assert [(machine.roles, machine.number) for machine in made.machines] == [
        (["a"], 4),
        (["b"], 2),
    ]
    assert providers.kind(plan.provider).lends
    assert isinstance(providers.of(plan.provider), enoslib_machines.EnoslibMachines)


def test_each_site_of_vmong5k_has_its_cluster() -> None:
    made = enoslib_configuration(plan_of("vmong5k"))
    assert [machine.cluster for machine in made.machines] == ["paravance", "gros"]
    assert made.machines[0].flavour_desc == {"core": 4, "mem": 4096}
    assert (made.job_name, made.walltime, made.project) == ("discovery-xp-t", "03:00:00", "lab")
    assert made.job_type == ["night"]


def test_vagrant_s_machines_are_on_one_network() -> None:
    made = enoslib_configuration(plan_of("vagrant"))
    assert [network.cidr for network in made.networks] == ["192.168.42.0/24"]
    assert made.machines[1].name_prefix == "t-b"
    assert made.machines[0].flavour_desc == {"core": 2, "mem": 3072}


def test_a_lease_of_chameleon_has_a_name_and_an_end() -> None:
    assert configuration(plan_of("baremetal"))["lease_name"] == "t"
    assert configuration(plan_of("baremetal"))["walltime"] == "02:00:00"
    assert "walltime" not in configuration(plan_of("kvm"))


def test_what_the_schema_does_not_take_is_told_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(plan: Plan) -> dict[str, Any]:
        told = configuration(plan)
        told["resources"]["machines"][0]["number"] = "many"
        return told

    monkeypatch.setattr(enoslib_machines, "configuration", broken)
    with pytest.raises(Refused, match=r"resources.machines.0.number: 'many' is not of type"):
        enoslib_configuration(plan_of("vagrant"))


@pytest.mark.parametrize(("name", "extra"), [("vagrant", "vagrant"), ("kvm", "chameleon")])
def test_a_missing_package_is_named_with_what_brings_it(name: str, extra: str) -> None:
    with pytest.raises(Refused, match=rf"needs a package.*pip install 'enoslib\[{extra}\]'"):
        enoslib_machines._provider(plan_of(name))


TOLD = """0
2: eth0    inet 192.168.121.30/24 brd 192.168.121.255 scope global dynamic eth0
3: eth1    inet 192.168.42.244/24 brd 192.168.42.255 scope global eth1
"""


def test_the_address_is_the_one_that_the_others_reach() -> None:
    assert address_in(TOLD, "192.168.42.0/24") == "192.168.42.244"
    assert address_in(TOLD, None) == "192.168.121.30"
    with pytest.raises(Failed, match=r"no address in 10.0.0.0/8; it has 192.168.121.30, "):
        address_in(TOLD, "10.0.0.0/8")


def test_machines_are_sorted_by_their_numbers() -> None:
    names = ["t-a-10", "t-a-2", "t-a-1"]
    assert sorted(names, key=enoslib_machines._natural) == ["t-a-1", "t-a-2", "t-a-10"]


@pytest.mark.parametrize("text", ["", "{", '{"nodes": 5}', "\udcff"])
def test_a_damaged_record_is_no_traceback_and_may_hold_machines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv("DISCOVERY_XP_HOME", str(tmp_path))
    testbed = Testbed("t")
    testbed.make_folder()
    (testbed.folder / "machines.json").write_bytes(text.encode(errors="surrogateescape"))
    assert enoslib_machines.is_lent(testbed)
    with pytest.raises(Refused, match=r"machines\.json: the record is damaged"):
        enoslib_machines.status(plan_of("vagrant"), testbed)


# ---------------------------------------------------------------- what EnOSlib pastes

HOSTILE = ["{{ lookup('pipe', 'id') }}", "#{`id`}", 'x"\n  id "', "x; id", "$(id)"]


@pytest.mark.parametrize("value", HOSTILE)
@pytest.mark.parametrize(
    ("name", "key"),
    [("vagrant", "box"), ("vagrant", "user"), ("vmong5k", "image"), ("kvm", "image"),
     ("kvm", "key_name"), ("kvm", "flavour"), ("kvm", "user"), ("baremetal", "rc_file")],
)  # fmt: skip
def test_values_that_it_would_paste_into_code_are_refused(name: str, key: str, value: str) -> None:
    plan = plan_of(name)
    platform: Any = plan.platform
    changed = dataclasses.replace(platform, **{key: value})
    with pytest.raises(Refused, match="EnOSlib can't be given the provider's") as refused:
        configuration(dataclasses.replace(plan, platform=changed))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "line", ["export LD_PRELOAD=/tmp/x.so", " export PATH=/tmp", "declare -x export=1", "export OS"]
)
def test_an_rc_file_sets_openstacks_variables_only(line: str, tmp_path: Path) -> None:
    file = tmp_path / "rc.sh"
    file.write_text('#!/bin/sh\nexport OS_AUTH_URL="https://x"\n')
    enoslib_machines._require_rc_file(str(file))
    with file.open("a") as opened:
        opened.write(f"{line}\n")
    with pytest.raises(Refused, match=r"rc\.sh:3: this line says 'export'"):
        enoslib_machines._require_rc_file(str(file))


def test_a_machine_s_address_is_one() -> None:
    said = "2: eth0 inet 999.1.2.3/24 x\n2: eth0 inet 10.0.0.7/24 x\n"
    assert address_in(said, None) == "10.0.0.7"
    with pytest.raises(Failed):
        address_in("inet 300.0.0.1/8", "10.0.0.0/8")
