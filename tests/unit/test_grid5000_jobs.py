"""Jobs start, wait, are refused and end, while a clock is stepped by hand."""

import datetime as dt
from typing import Any

import pytest

from tests.grid5000 import ClusterSpec, Emulator, ManualClock
from tests.grid5000.jobs import Job, Quotas, Refused, Submission, format_date
from tests.grid5000.platform import PARIS, Platform, Sites, parse_sites

# A Wednesday, at noon in Paris.
NOON = dt.datetime(2024, 3, 6, 12, tzinfo=PARIS).timestamp()


class Rennes:
    """One site, and a clock to step."""

    def __init__(self) -> None:
        self.clock = ManualClock(NOON)
        paranoia = ClusterSpec(2, exotic=True)
        sites: Sites = {"rennes": {"paravance": 4, "paranoia": paranoia}, "nantes": {"econome": 2}}
        self.emulator = Emulator.of(sites, clock=self.clock)
        self.jobs = self.emulator.jobs

    def submit(self, resources: str = "nodes=1", user: str = "alice", **more: Any) -> Job:
        more = {"command": "sleep 10d", **more}
        return self.jobs.submit(Submission("rennes", user, resources, **more))

    def after(self, seconds: float) -> None:
        self.clock.skip(seconds)
        self.emulator.advance()

    def machine(self, name: str) -> str:
        state: dict[str, str] = getattr(self.emulator.machines, "state", {})
        return state.get(f"{name}.rennes.grid5000.fr", "untouched")


@pytest.fixture
def rennes() -> Rennes:
    return Rennes()


def nodes(job: Job) -> list[str]:
    return [name.split(".")[0] for name in job.named("node")]


# ---------------------------------------------------------------- the life of a job


def test_a_job_from_its_submission_to_its_walltime(rennes: Rennes) -> None:
    job = rennes.submit("nodes=2,walltime=1:00:00")
    states = [job.state]
    for seconds in (1, 1, 1, 4, 3580, 15):
        rennes.after(seconds)
        states.append(job.state)
    assert states == ["waiting", "waiting", "tolaunch", "launching", "running", "running",
                      "terminated"]  # fmt: skip
    assert nodes(job) == ["paravance-1", "paravance-2"]
    assert job.started_at == NOON + 2
    assert job.stopped_at == NOON + 2 + 3600


def test_a_job_ends_with_its_command(rennes: Rennes) -> None:
    job = rennes.submit("nodes=1,walltime=1", command="sleep 60")
    rennes.after(7 + 59)
    assert job.state == "running"
    rennes.after(1)
    assert job.state == "terminated"


def test_machines_follow_the_jobs(rennes: Rennes) -> None:
    job = rennes.submit()
    rennes.after(10)
    assert rennes.machine("paravance-1") == "standard"
    rennes.jobs.delete(job)
    rennes.after(10)
    assert (job.state, rennes.machine("paravance-1")) == ("error", "off")
    rennes.submit(types=("deploy",))
    rennes.after(10)
    assert rennes.machine("paravance-1") == "off"  # until something is deployed there


def test_a_second_end_is_refused(rennes: Rennes) -> None:
    job = rennes.submit()
    rennes.jobs.delete(job)
    with pytest.raises(Refused, match="This job was already killed"):
        rennes.jobs.delete(job)
    rennes.after(60)
    assert job.state == "error"
    with pytest.raises(Refused, match="This job was already killed"):
        rennes.jobs.delete(job)


def test_the_platform_kills_a_job(rennes: Rennes) -> None:
    job = rennes.submit()
    rennes.after(60)
    rennes.jobs.kill(job, "the node is broken")
    rennes.after(60)
    assert job.state == "error"
    assert "the node is broken" in [event["description"] for event in job.events]


# ---------------------------------------------------------------- who gets what, and when


def test_a_job_waits_for_nodes(rennes: Rennes) -> None:
    first = rennes.submit("nodes=3,walltime=1")
    second = rennes.submit("nodes=3,walltime=1")
    small = rennes.submit("nodes=1,walltime=1")
    assert second.planned_at == first.ends_at
    assert small.planned_at == first.planned_at  # it fits beside the first one
    rennes.after(10)
    assert [job.state for job in (first, second, small)] == ["running", "waiting", "running"]
    rennes.jobs.delete(first)
    rennes.after(20)
    assert second.state == "running"  # earlier than it was planned


def test_servers_and_clusters(rennes: Rennes) -> None:
    servers = "('paravance-3.rennes.grid5000.fr', 'paravance-4.rennes.grid5000.fr')"
    job = rennes.submit(f"{{network_address in {servers}}}/nodes=2+{{cluster='paravance'}}/nodes=1")
    assert nodes(job) == ["paravance-3", "paravance-4", "paravance-1"]
    assert nodes(rennes.submit("/cluster=1/nodes=1")) == ["paravance-2"]


def test_cores_come_as_whole_nodes(rennes: Rennes) -> None:
    assert nodes(rennes.submit("core=17")) == ["paravance-1", "paravance-2"]


def test_exotic_nodes_want_the_type(rennes: Rennes) -> None:
    with pytest.raises(Refused, match="There are not enough resources for your request"):
        rennes.submit("{cluster='paranoia'}/nodes=1")
    job = rennes.submit("{cluster='paranoia'}/nodes=1", types=("exotic",))
    assert nodes(job) == ["paranoia-1"]


def test_vlans_and_subnets(rennes: Rennes) -> None:
    networks = "{type='kavlan'}/vlan=1+{type='kavlan-global'}/vlan=1+slash_22=2"
    job = rennes.submit(f"{networks}+nodes=1")
    assert job.named("vlan") == ["4", "11"]
    assert job.named("subnet") == ["10.132.0.0/22", "10.132.4.0/22"]
    other = rennes.submit("{type='kavlan'}/vlan=1+{type='kavlan-local'}/vlan=1+slash_16=1")
    assert other.named("vlan") == ["5", "1"]
    assert len(other.named("subnet")) == 64
    waits = rennes.submit("{type='kavlan-global'}/vlan=1+nodes=1")
    assert waits.planned_at == job.ends_at


@pytest.mark.parametrize(
    ("asked", "text"),
    [
        ({"resources": "nodes=5"}, "There are not enough resources for your request"),
        ({"resources": "{cluster='econome'}/nodes=1"}, "not enough resources"),
        ({"resources": "gpu=1"}, "Bad resource request"),
        ({"resources": "{colour='red'}/nodes=1"}, 'column "colour" does not exist'),
        ({"types": ("fast",)}, "unknown job type: fast"),
        ({"queue": "express"}, "queue express does not exist"),
        ({"queue": "production"}, "not enough resources"),
        ({"project": "others"}, "alice is not a member of others"),
        ({"types": ("besteffort",), "reservation": "2024-03-07 12:00:00"}, "cannot both be"),
        ({"types": ("inner=7",)}, "job 7 is no container"),
    ],
)
def test_refusals(rennes: Rennes, asked: dict[str, Any], text: str) -> None:
    with pytest.raises(Refused, match=text):
        rennes.submit(**asked)
    assert rennes.jobs.of("rennes") == []


def test_dead_nodes_are_left_out(rennes: Rennes) -> None:
    rennes.jobs.set_hardware("paravance-1.rennes.grid5000.fr", "dead")
    assert nodes(rennes.submit()) == ["paravance-2"]
    with pytest.raises(Refused, match="not enough resources"):
        rennes.submit("nodes=4")
    rennes.jobs.set_hardware("paravance-1.rennes.grid5000.fr", "alive")
    rennes.submit("nodes=4")


# ---------------------------------------------------------------- reservations


def test_a_reservation_starts_at_its_date(rennes: Rennes) -> None:
    job = rennes.submit(reservation="2024-03-06 14:00:00")
    assert nodes(job) == ["paravance-1"]  # known from the beginning
    rennes.after(7200 - 1)
    assert job.state == "waiting"
    rennes.after(10)
    assert job.state == "running"


def test_nothing_is_planned_into_a_reservation(rennes: Rennes) -> None:
    rennes.submit("nodes=4,walltime=1", reservation="2024-03-06 12:30:00")
    assert rennes.submit("nodes=1,walltime=0:29").planned_at == NOON + 2
    later = rennes.submit("nodes=1,walltime=1")
    assert later.planned_at == NOON + 1800 + 3600


def test_a_refused_reservation_says_when_it_could_run(rennes: Rennes) -> None:
    rennes.submit("nodes=3,walltime=2", reservation="2024-03-06 13:00:00")
    says = r"Reservation not valid --> KO \(This reservation could run at 2024-03-06 15:00:00\)"
    with pytest.raises(Refused, match=says):
        rennes.submit("nodes=2,walltime=1", reservation="2024-03-06 13:30:00")
    rennes.submit("nodes=2,walltime=1", reservation="2024-03-06 15:00:00")


def test_reservations_of_the_past_and_without_sense(rennes: Rennes) -> None:
    with pytest.raises(Refused, match="Reservation too old"):
        rennes.submit(reservation="2024-03-06 11:59:59")
    with pytest.raises(ValueError, match="Syntax error in reservation start date"):
        rennes.submit(reservation="tomorrow")


def test_other_ways_to_write_a_reservation(rennes: Rennes) -> None:
    job = rennes.submit(reservation="13,13:30")
    assert (job.planned_at, job.walltime_s) == (NOON + 3600, 1800)
    assert rennes.submit(reservation="now").planned_at == NOON
    assert format_date(NOON) == "2024-03-06 12:00:00"


# ---------------------------------------------------------------- types


def test_besteffort_jobs_give_way(rennes: Rennes) -> None:
    low = rennes.submit("nodes=3,walltime=5", types=("besteffort",))
    rennes.after(60)
    assert (low.state, low.queue) == ("running", "besteffort")
    beside = rennes.submit("nodes=1")
    assert nodes(beside) == ["paravance-4"]
    rennes.after(60)
    assert low.state == "running"
    rennes.submit("nodes=1")
    rennes.after(60)
    assert low.state == "error"
    assert "BESTEFFORT_KILL" in [event["type"] for event in low.events]


def test_jobs_in_a_container(rennes: Rennes) -> None:
    outer = rennes.submit("nodes=2,walltime=2", types=("container",))
    inner = rennes.submit("nodes=2,walltime=1", types=(f"inner={outer.uid}",))
    second = rennes.submit("nodes=1,walltime=0:30", types=(f"inner={outer.uid}",))
    assert nodes(inner) == nodes(outer)
    assert second.planned_at == inner.ends_at
    too_long = rennes.submit("nodes=2,walltime=1:50", types=(f"inner={outer.uid}",))
    assert too_long.planned_at is None
    assert nodes(rennes.submit("nodes=2")) == ["paravance-3", "paravance-4"]


def test_days_and_nights(rennes: Rennes) -> None:
    def start(hours: int, of_type: str) -> str:
        job = rennes.submit(f"nodes=1,walltime={hours}", types=(of_type,))
        assert job.planned_at is not None
        return format_date(job.planned_at)[:16]

    assert start(3, "day") == "2024-03-06 12:00"
    assert start(9, "day") == "2024-03-07 09:00"
    assert start(3, "night") == "2024-03-06 19:00"
    assert start(40, "night") == "2024-03-08 19:00"  # the end of the week


# ---------------------------------------------------------------- quotas and walltimes


def test_quotas(rennes: Rennes) -> None:
    rennes.jobs.admission.append(Quotas(nodes=3, node_hours=10, reservations=1))
    rennes.submit("nodes=2,walltime=2")
    with pytest.raises(Refused, match=r"\[ADMISSION RULE\] Error: alice would have 4 nodes"):
        rennes.submit("nodes=2")
    with pytest.raises(Refused, match="would have 14 node hours"):
        rennes.submit("nodes=1,walltime=10")
    rennes.submit("nodes=1", reservation="2024-03-07 12:00:00")
    rennes.submit("nodes=1", user="bob")


def test_a_walltime_that_changes(rennes: Rennes) -> None:
    job = rennes.submit("nodes=2,walltime=1")
    rennes.after(60)
    assert rennes.jobs.change_walltime(job, 7200)
    rennes.submit("nodes=3", reservation="2024-03-06 15:00:00")
    assert not rennes.jobs.change_walltime(job, 4 * 3600)
    assert job.walltime_s == 7200


# ---------------------------------------------------------------- the platform


def test_platforms_are_described_in_one_line() -> None:
    sites = parse_sites("rennes:paravance=4+parasilo=2,nantes:econome=4")
    assert sites == {"rennes": {"paravance": 4, "parasilo": 2}, "nantes": {"econome": 4}}


@pytest.mark.parametrize("text", ["rennes", "rennes:paravance", "rennes:paravance=many"])
def test_platforms_that_make_no_sense(text: str) -> None:
    with pytest.raises(ValueError, match="should look like"):
        parse_sites(text)


def test_clusters_have_names_of_their_own() -> None:
    with pytest.raises(ValueError, match="is there twice"):
        Platform.of({"rennes": {"paravance": 1}, "nantes": {"paravance": 1}})
    with pytest.raises(ValueError, match="should look like"):
        Platform.of({"rennes": {"para-vance": 1}})


def test_addresses_are_all_different() -> None:
    platform = Platform.of({"rennes": {"paravance": 72, "parasilo": 28}, "nantes": {"econome": 22}})
    found = [site.address(node) for site in platform.sites.values() for node in site.nodes]
    assert len(set(found)) == 122
    for site in platform.sites.values():
        assert all(site.address(node) in site.production for node in site.nodes)
