"""Deployments, what stands behind the nodes, and the VLANs that they are put in."""

from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any

import pytest

from tests.grid5000 import Emulator, InMemoryMachines, MachineFailed, ManualClock, Platform
from tests.grid5000.deployments import Refused
from tests.grid5000.jobs import Job, Submission
from tests.grid5000.platform import Node
from tests.grid5000.vlans import Forbidden

A, B = "paravance-1.rennes.grid5000.fr", "paravance-2.rennes.grid5000.fr"
PLATFORM = Platform.of({"rennes": {"paravance": 3}, "nantes": {"econome": 2}})


def emulator_of(**more: Any) -> tuple[Emulator, ManualClock, Job]:
    """One where alice has a job with two nodes and a VLAN."""
    clock = ManualClock()
    emulator = Emulator(PLATFORM, clock, **more)
    asked = "{type='kavlan'}/vlan=1+nodes=2,walltime=2"
    job = emulator.jobs.submit(
        Submission("rennes", "alice", asked, command="sleep 1d", types=("deploy",))
    )
    clock.skip(10)
    emulator.advance()
    return emulator, clock, job


def states(result: dict[str, dict[str, Any]]) -> dict[str, str]:
    return {node: found["state"] for node, found in result.items()}


def test_a_deployment_takes_its_time() -> None:
    emulator, clock, _ = emulator_of()
    made = emulator.deployments.start("rennes", "alice", [A, B], "debian12-min", key="ssh-rsa me")
    clock.skip(170)
    emulator.advance()
    assert made.status == "processing"
    assert "result" not in emulator.deployments.document(made, "")
    clock.skip(10)
    emulator.advance()
    assert made.status == "terminated"
    assert states(made.result) == {A: "OK", B: "OK"}
    machines = emulator.machines
    assert isinstance(machines, InMemoryMachines)
    assert machines.state[A] == "debian12-min"
    assert machines.keys[A] == "ssh-rsa me"


def test_nodes_that_fail_and_nodes_that_stay_silent() -> None:
    emulator, clock, _ = emulator_of()
    emulator.faults.fail_to_deploy([A], times=1)
    emulator.faults.stay_silent([B])
    for expected in ({A: "KO", B: "OK"}, {A: "OK", B: "OK"}):
        made = emulator.deployments.start("rennes", "alice", [A, B], "debian12-min")
        clock.skip(180)
        emulator.advance()
        assert states(made.result) == expected
    machines = emulator.machines
    assert isinstance(machines, InMemoryMachines)
    assert machines.state == {A: "debian12-min", B: "off"}


def test_a_deployment_that_breaks_as_a_whole() -> None:
    emulator, clock, _ = emulator_of()
    emulator.faults.break_deployments()
    made = emulator.deployments.start("rennes", "alice", [A], "debian12-min")
    clock.skip(180)
    emulator.advance()
    assert made.status == "error"


def test_a_job_that_ends_meanwhile() -> None:
    emulator, clock, job = emulator_of()
    made = emulator.deployments.start("rennes", "alice", [A], "debian12-min")
    emulator.jobs.kill(job, "maintenance")
    clock.skip(180)
    emulator.advance()
    assert states(made.result) == {A: "KO"}


@pytest.mark.parametrize(
    ("user", "nodes", "environment", "vlan", "text"),
    [
        ("alice", [A], "windows-min", None, "the environment windows-min does not exist"),
        ("bob", [A], "debian12-min", None, "bob may not deploy on paravance-1"),
        ("alice", ["paravance-3.rennes.grid5000.fr"], "debian12-min", None, "may not deploy"),
        ("alice", ["paravance-9.rennes.grid5000.fr"], "debian12-min", None, "does not exist"),
        ("alice", [A], "debian12-min", "5", "may not use the VLAN 5"),
    ],
)
def test_refusals(
    user: str, nodes: list[str], environment: str, vlan: str | None, text: str
) -> None:
    emulator, _, _ = emulator_of()
    with pytest.raises(Refused, match=text):
        emulator.deployments.start("rennes", user, nodes, environment, vlan=vlan)


def test_one_deployment_at_a_time() -> None:
    emulator, _, _ = emulator_of()
    emulator.deployments.start("rennes", "alice", [A], "debian12-min")
    with pytest.raises(Refused, match="already involved"):
        emulator.deployments.start("rennes", "alice", [A, B], "debian12-min")


# ---------------------------------------------------------------- machines


class Later(Executor):
    """Keeps tasks until it is told to run them."""

    def __init__(self) -> None:
        self.tasks: list[tuple[Future[Any], Callable[[], Any]]] = []

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self.tasks.append((future, lambda: fn(*args, **kwargs)))
        return future

    def run(self) -> None:
        for future, task in self.tasks:
            try:
                future.set_result(task())
            except MachineFailed as error:
                future.set_exception(error)
        self.tasks.clear()


class Broken(InMemoryMachines):
    """Its first node doesn't come up."""

    def deploy(self, node: Node, environment: str, public_key: str) -> None:
        if node.fqdn == A:
            raise MachineFailed("no answer")
        super().deploy(node, environment, public_key)


def test_a_deployment_waits_for_its_machines() -> None:
    later = Later()
    emulator, clock, job = emulator_of(machines=Broken(PLATFORM), executor=later)
    made = emulator.deployments.start("rennes", "alice", [A, B], "debian12-min")
    clock.skip(600)
    emulator.advance()
    assert made.status == "processing"
    later.run()
    emulator.advance()
    assert states(made.result) == {A: "KO", B: "OK"}
    emulator.jobs.delete(job)
    clock.skip(10)
    emulator.advance()
    later.run()
    assert isinstance(emulator.machines, Broken)
    assert emulator.machines.state == {A: "off", B: "off"}


def test_everything_is_released_at_the_end() -> None:
    emulator, _, job = emulator_of()
    emulator.deployments.start("rennes", "alice", [A], "debian12-min")
    emulator.close()
    assert job.state == "error"
    assert isinstance(emulator.machines, InMemoryMachines)
    assert emulator.machines.state == {A: "off", B: "off"}


def test_a_job_runs_when_its_nodes_are_up() -> None:
    clock, later = ManualClock(), Later()
    emulator = Emulator(PLATFORM, clock, executor=later)
    job = emulator.jobs.submit(Submission("rennes", "alice", "nodes=2"))
    clock.skip(60)
    emulator.advance()
    assert job.state == "launching"
    later.run()
    emulator.advance()
    assert job.state == "running"


# ---------------------------------------------------------------- VLANs


def test_a_deployment_in_a_vlan() -> None:
    emulator, clock, job = emulator_of()
    site = PLATFORM.sites["rennes"]
    emulator.deployments.start("rennes", "alice", [A], "debian12-min", vlan="4")
    assert emulator.vlans.inside(site, "4") == [A]
    assert emulator.vlans.of(B) == "DEFAULT"
    emulator.jobs.delete(job)
    clock.skip(10)
    emulator.advance()
    assert emulator.vlans.of(A) == "DEFAULT"  # with the job it goes back


def test_second_interfaces_in_a_vlan() -> None:
    emulator, _, _ = emulator_of()
    site = PLATFORM.sites["rennes"]
    second = "paravance-1-eth1.rennes.grid5000.fr"
    asked = [second, "paravance-1-eth7.rennes.grid5000.fr"]
    found = emulator.vlans.put(site, "4", asked, "alice")
    assert found == {second: "ok", asked[1]: "unknown_node"}
    assert emulator.vlans.put(site, "4", [second], "alice") == {second: "unchanged"}
    assert emulator.vlans.of(A) == "DEFAULT"
    assert emulator.vlans.users(site, "4") == ["alice"]


def test_vlans_and_nodes_of_others() -> None:
    emulator, _, _ = emulator_of()
    site = PLATFORM.sites["rennes"]
    with pytest.raises(Forbidden):
        emulator.vlans.put(site, "5", [A], "alice")
    with pytest.raises(Forbidden):
        emulator.vlans.put(site, "4", [A], "bob")
    with pytest.raises(Forbidden):
        emulator.vlans.put(site, "4", ["paravance-3.rennes.grid5000.fr"], "alice")


def test_a_global_vlan_reaches_other_sites() -> None:
    clock = ManualClock()
    emulator = Emulator(PLATFORM, clock)
    for site, asked in (("rennes", "{type='kavlan-global'}/vlan=1"), ("nantes", "nodes=1")):
        emulator.jobs.submit(Submission(site, "alice", asked, types=("deploy",)))
    clock.skip(10)
    emulator.advance()
    nantes = PLATFORM.sites["nantes"]
    assert PLATFORM.vlans(nantes)["11"] == "kavlan-global-remote"
    node = "econome-1.nantes.grid5000.fr"
    assert emulator.vlans.put(nantes, "11", [node], "alice") == {node: "ok"}
