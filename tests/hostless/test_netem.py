"""tc netem for real, on every kernel: in a virtual machine that has sch_netem.

The lines are the very ones that EnOSlib would run on the hosts for our links, and
so are those that read back, measure and reset; what they print goes through our own
code.  Round trips are those of the virtual machine's clock.
"""

from __future__ import annotations

import pytest
from enoslib import Host

from discovery_xp.inputs.topology import Link, parse_topology
from discovery_xp.places import cache
from discovery_xp.planning.plan import Plan, PlannedLink, make_plan
from discovery_xp.testbeds import links, pings
from discovery_xp.testbeds.hosts import Reading
from discovery_xp.testbeds.transport import Output
from tests.netem_vm import Step, StepResult, VmHost, run_in_vm

pytestmark = pytest.mark.vm

TOPOLOGY = """
name: vm
sites: [{name: a, computes: 1}, {name: b, computes: 0}, {name: c, computes: 0}]
master: none
network:
  delay: 10ms
  links:
    - {from: a, to: b, delay: 3ms}
    - {from: b, to: a, delay: 40ms, jitter: 1ms}
    - {between: [b, c], rtt: 100ms, loss: 20%, rate: 10mbit}
"""

PINGS = 40


@pytest.fixture(scope="module")
def plan() -> Plan:
    return make_plan(parse_topology(TOPOLOGY))


@pytest.fixture(scope="module")
def results(plan: Plan) -> dict[str, dict[str, StepResult]]:
    """Everything in one boot: results by stage, then by host."""
    impose = imposing(plan, plan.links)
    changed = [PlannedLink(link.source, link.target, Link(1)) for link in plan.links[:1]]
    read = {host.name: links.read_back_command("eth0") for host in plan.hosts}
    ping = {
        host.name: pings.fping_command(
            [str(other.address) for other in plan.hosts if other.name != host.name],
            pings.Pace(PINGS),
        )
        for host in plan.hosts
    }
    reset = {host.name: links.RESET_COMMAND for host in plan.hosts}
    stages = {
        "impose": impose,
        "read": read,
        "ping": ping,
        "reset before change": reset,
        "change": imposing(plan, changed),
        "read changed": read,
        "reset": reset,
        "read after reset": read,
        "ping after reset": ping,
        "reset again": reset,
    }
    order = [(stage, host) for stage, commands in stages.items() for host in commands]
    steps = [Step(host, stages[stage][host]) for stage, host in order]
    hosts = [
        VmHost(host.name, f"{host.address}/24", str(plan.site(host.site).gateway))
        for host in plan.hosts
    ]
    done = run_in_vm(hosts, steps, cache_dir=cache() / "test-vm", timeout_s=300)
    found: dict[str, dict[str, StepResult]] = {stage: {} for stage in stages}
    for (stage, host), result in zip(order, done, strict=True):
        found[stage][host] = result
    return found


def imposing(plan: Plan, planned: list[PlannedLink] | tuple[PlannedLink, ...]) -> dict[str, str]:
    hosts = {host.name: Host(host.address, alias=host.name) for host in plan.hosts}
    devices = dict.fromkeys(hosts, "eth0")
    lines = links.tc_commands(links.htb_sources(plan, planned, hosts, devices))
    return {name: "\n".join(chunks) for name, chunks in lines.items()}


def readings(plan: Plan, printed: dict[str, StepResult]) -> list[Reading]:
    return links.readings_of(
        plan,
        {
            name: Output(result.exit_code, result.stdout, result.stderr)
            for name, result in printed.items()
        },
    )


def samples(result: StepResult, plan: Plan, target: str) -> list[float | None]:
    return pings.parse_fping(result.stderr + result.stdout)[str(plan.host(target).address)]


Results = dict[str, dict[str, StepResult]]


def test_what_is_imposed_is_read_back(plan: Plan, results: Results) -> None:
    assert all(result.exit_code == 0 for result in results["impose"].values())
    assert links.disagreements(plan.links, readings(plan, results["read"])) == []


def test_a_wrong_reading_would_be_noticed(plan: Plan, results: Results) -> None:
    other = [PlannedLink(link.source, link.target, Link(11)) for link in plan.links]
    assert len(links.disagreements(other, readings(plan, results["read"]))) == 8


@pytest.mark.parametrize(
    ("source", "target", "requested_ms"),
    [
        ("a-controller-1", "b-controller-1", 43),
        ("b-controller-1", "a-controller-1", 43),
        ("a-compute-1", "b-controller-1", 43),
        ("a-controller-1", "c-controller-1", 20),
        ("b-controller-1", "c-controller-1", 100),
        ("a-controller-1", "a-compute-1", 0),
    ],
)
def test_round_trips_are_those_asked_for(
    plan: Plan, results: Results, source: str, target: str, requested_ms: float
) -> None:
    replies = samples(results["ping"][source], plan, target)
    pair_links = (Link(requested_ms), Link())
    pair = pings.summarise(source, target, pair_links, replies, plan.tolerance)
    assert not pair.is_off, pair
    assert pair.error_ms is not None
    assert abs(pair.error_ms) < 1


def test_packets_are_lost_where_asked(plan: Plan, results: Results) -> None:
    lossy = [
        *samples(results["ping"]["b-controller-1"], plan, "c-controller-1"),
        *samples(results["ping"]["c-controller-1"], plan, "b-controller-1"),
    ]
    # 20 % each way: 64 % of 80 come back, more or less.
    assert 15 <= lossy.count(None) <= 45
    assert samples(results["ping"]["a-controller-1"], plan, "c-controller-1").count(None) == 0


def test_a_change_leaves_nothing_of_before(plan: Plan, results: Results) -> None:
    """Hosts that no longer have any constraint are reset too."""
    wanted = [
        PlannedLink(link.source, link.target, Link(1) if number == 0 else Link())
        for number, link in enumerate(plan.links)
    ]
    assert links.disagreements(wanted, readings(plan, results["read changed"])) == []


def test_reset_leaves_nothing(plan: Plan, results: Results) -> None:
    plain = [PlannedLink(link.source, link.target, Link()) for link in plan.links]
    assert links.disagreements(plain, readings(plan, results["read after reset"])) == []
    for printed in results["read after reset"].values():
        assert "netem" not in printed.stdout
        assert "htb" not in printed.stdout
    replies = samples(results["ping after reset"]["b-controller-1"], plan, "c-controller-1")
    assert all(ping is not None and ping < 2 for ping in replies)
    assert all(result.exit_code == 0 for result in results["reset again"].values())
