"""The emulated Grid'5000 as its real clients see it: python-grid5000 and EnOSlib.

Everything that EnOSlib does over ssh is left out here: nothing stands behind the nodes.  What
it waits for passes at once: its sleeps put the platform's clock forward instead.
"""

from __future__ import annotations

import datetime as dt
import json
import re
import subprocess
import sys
import time
import types
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import enoslib as en
import pytest
import requests
from enoslib.errors import (
    InvalidReservationCritical,
    InvalidReservationTime,
    InvalidReservationTooOld,
)
from enoslib.infra.enos_g5k import g5k_api_utils
from enoslib.infra.enos_g5k.error import EnosG5kDuplicateJobsError
from grid5000 import Grid5000, Grid5000Offline
from grid5000.exceptions import (
    Grid5000AuthenticationError,
    Grid5000CreateError,
    Grid5000DeleteError,
    Grid5000GetError,
)

from tests.grid5000 import Emulator, RunningClock, Server
from tests.grid5000.jobs import Job, Jobs, Submission
from tests.grid5000.platform import PARIS

pytestmark = [pytest.mark.real, pytest.mark.timeout(120)]

SITES = {"rennes": {"paravance": 4, "parasilo": 2}, "nantes": {"econome": 3}}


class Grid:
    """The emulator that a test runs against, and the clock that drives it."""

    def __init__(self, server: Server, clock: RunningClock) -> None:
        self.server = server
        self.clock = clock
        self.emulator = server.emulator
        self.faults = server.emulator.faults

    def client(self, **more: Any) -> Any:
        login = {"username": "alice", "password": "secret", **more}
        return Grid5000(uri=self.server.uri, **login)

    def after(self, seconds: float) -> None:
        self.clock.skip(seconds)

    def occupy(self, resources: str, site: str = "rennes", reservation: str | None = None) -> None:
        """Bob has a job, too."""
        with self.emulator.lock:
            self.emulator.jobs.submit(
                Submission(site, "bob", resources, "sleep 30d", reservation=reservation)
            )

    def posts(self, what: str) -> int:
        return sum(method == "POST" and path.endswith(what) for method, path in self.server.calls)

    def states(self) -> dict[str, list[str]]:
        """The states of all jobs, site by site, the oldest first."""
        with self.emulator.lock:
            self.emulator.advance()
            return {
                site: [job.state for job in reversed(self.emulator.jobs.of(site))]
                for site in self.emulator.platform.sites
            }


@pytest.fixture
def grid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Grid]:
    """An emulator that listens, and a home whose configuration points there."""
    clock = RunningClock()
    with Server(Emulator.of(SITES, clock=clock), ask_password=True) as server:
        (tmp_path / ".python-grid5000.yaml").write_text(
            f"uri: {server.uri}\nusername: alice\npassword: secret\n"
        )
        (tmp_path / ".ssh").mkdir()
        (tmp_path / ".ssh/id_ed25519.pub").write_text("ssh-ed25519 AAAA alice\n")
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(g5k_api_utils, "_api_client", None)
        monkeypatch.setattr(g5k_api_utils, "time", types.SimpleNamespace(sleep=clock.skip))
        for cached in vars(g5k_api_utils).values():
            if hasattr(cached, "cache_clear"):
                cached.cache_clear()
        yield Grid(server, clock)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """python-grid5000 asks again without waiting up to five seconds in between."""
    hasty = types.SimpleNamespace(sleep=lambda seconds: None, time=time.time)
    monkeypatch.setattr("urllib3.util.retry.time", hasty)


def running_job(grid: Grid, site: str = "rennes", **asked: Any) -> Any:
    asked = {"command": "sleep 1d", "types": ["deploy"], **asked}
    job = grid.client().sites[site].jobs.create(asked)
    grid.after(10)
    job.refresh()
    assert job.state == "running"
    return job


# ---------------------------------------------------------------- python-grid5000


def test_every_object_of_the_reference_api(grid: Grid) -> None:
    client = grid.client()
    root = client.root.get()
    assert root.uid == "grid5000"
    assert [site.uid for site in root.sites.list()] == ["rennes", "nantes"]
    site = client.sites["rennes"]
    cluster = site.clusters["paravance"]
    node = cluster.nodes["paravance-1"]
    collections = [
        root.versions, root.network_equipments, site.versions, site.clusters, site.pdus,
        site.servers, site.environments, site.network_equipments, cluster.nodes,
        cluster.versions, node.versions,
    ]  # fmt: skip
    for collection in collections:
        uids = [item.uid for item in collection.list()]
        assert uids
        assert collection[uids[0]].uid == uids[0]
    assert node.architecture["nb_threads"] == 16
    assert len(cluster.status.list().nodes) == 4
    assert set(site.status.list().vlans) == {*"123456789", "11"}
    offline = Grid5000Offline(client.dump_ref_api())
    assert offline.sites["rennes"].clusters["paravance"].nodes["paravance-1"].uid == node.uid


def test_the_life_of_a_job_and_a_deployment(grid: Grid) -> None:
    resources = "{type='kavlan'}/vlan=1+slash_22=1+{cluster='paravance'}/nodes=2"
    job = running_job(grid, resources=resources, name="life")
    site = grid.client().sites["rennes"]
    assert [found.uid for found in site.jobs.list(name="life", state="running")] == [job.uid]
    vlan = job.resources_by_type["vlans"][0]
    made = site.deployments.create(
        {"nodes": job.assigned_nodes, "environment": "debian12-min", "vlan": vlan}
    )
    assert made.status == "processing"
    grid.after(200)
    made.refresh()
    assert {found["state"] for found in made.result.values()} == {"OK"}
    assert len(site.vlans[vlan].nodes.list()) == 2
    assert site.vlans[vlan].users["alice"].status == "authorized"
    second = [name.replace(".", "-eth1.", 1) for name in job.assigned_nodes]
    moved = site.vlans[vlan].nodes.submit(second)
    assert {found["status"] for found in moved.values()} == {"success"}
    assert [found.vlan for found in site.vlansnodes.submit(second)] == [vlan, vlan]
    assert site.vlansusers["alice"].vlans == [vlan]
    job.walltime_change.create({"walltime": "+1:00:00"})
    assert job.walltime_change.get().walltime == "2:0:0"
    assert [rule.port for rule in job.firewall.create([{"port": 22}])] == [22]
    job.firewall.delete()
    assert job.firewall.list() == []
    job.delete()
    with pytest.raises(Grid5000DeleteError, match="This job was already killed"):
        job.delete()
    grid.after(10)
    job.refresh()
    assert job.state == "error"


def test_storage_metrics_and_stitcher(grid: Grid) -> None:
    client = grid.client()
    rules = client.sites["rennes"].storage["home"].access["alice"].rules
    rules.create({"ipv4": ["10.0.0.1"], "termination": {"job": 7, "site": "rennes"}})
    assert rules.list()[0].ipv4 == ["10.0.0.1"]
    metrics = client.sites["rennes"].metrics.list(nodes="paravance-1")
    assert {metric.device_id for metric in metrics} == {"paravance-1"}
    client.stitcher.create({"id": "11", "sdx_vlan_id": "1290"})
    assert [item.sdx_vlan_id for item in client.stitcher.list()] == ["1290"]
    client.stitcher["11"].delete()
    assert client.stitcher.list() == []


def test_credentials(grid: Grid) -> None:
    with pytest.raises(Grid5000AuthenticationError):
        grid.client(password="wrong").sites.list()
    with pytest.raises(Grid5000AuthenticationError):
        grid.client(username=None).sites.list()
    grid.server.ask_password = False
    assert len(grid.client(username=None).sites.list()) == 2
    with pytest.raises(Grid5000CreateError, match="not authorized"):
        grid.client(username=None).sites["rennes"].jobs.create({"command": "sleep 1"})


@pytest.mark.usefixtures("impatient")
def test_which_errors_are_tried_again(grid: Grid) -> None:
    client = grid.client()
    grid.faults.fail(500, calls=5)
    assert len(client.sites.list()) == 2  # it asked six times
    grid.faults.fail(500)
    with pytest.raises(requests.exceptions.RetryError):
        client.sites.list()
    grid.faults.clear()
    grid.faults.fail(503, calls=1)
    with pytest.raises(Grid5000GetError, match="503"):
        client.sites["rennes"]
    grid.faults.fail(500, calls=1, method="POST")
    with pytest.raises(Grid5000CreateError, match="500"):
        client.sites["rennes"].jobs.create({"command": "sleep 1"})
    assert grid.states() == {"rennes": [], "nantes": []}


@pytest.mark.usefixtures("impatient")
def test_the_api_goes_away_and_comes_back(grid: Grid) -> None:
    client = grid.client()
    with grid.server.down(), pytest.raises(requests.exceptions.ConnectionError):
        client.sites.list()
    assert len(client.sites.list()) == 2
    grid.faults.slow(4, calls=1)
    asked = len(grid.server.calls)
    assert len(grid.client(timeout=2).sites.list()) == 2
    assert len(grid.server.calls) > asked + 1, "it didn't wait for the first answer"


# ---------------------------------------------------------------- EnOSlib


class G5k(en.G5k):  # type: ignore[misc]
    """EnOSlib's provider without its steps over ssh."""

    def _verify_environment_consistency(self) -> bool:
        """Reads /etc/grid5000/release on the nodes; a new job's don't answer."""
        return False

    def wait_nodes(self) -> None:
        """Waits until the nodes let root in."""

    def dhcp_networks(self) -> None:
        """Starts DHCP clients on second interfaces."""


def conf(*groups: tuple[str, int, str], **settings: Any) -> Any:
    settings = {
        "job_name": "try",
        "job_type": ["deploy"],
        "env_name": "debian12-min",
        "walltime": "01:00:00",
        **settings,
    }
    made = en.G5kConf.from_settings(**settings)
    for cluster, nodes, role in groups:
        made.add_machine(roles=[role], cluster=cluster, nodes=nodes)
    return made


def names(hosts: Any) -> list[str]:
    return sorted(host.alias.split(".")[0] for host in hosts)


def test_enoslib_reserves_deploys_reloads_and_destroys(grid: Grid) -> None:
    provider = G5k(conf(("paravance", 2, "compute"), ("parasilo", 1, "control")))
    roles, networks = provider.init()
    assert names(roles["compute"]) == ["paravance-1", "paravance-2"]
    assert names(roles["control"]) == ["parasilo-1"]
    assert [str(network.network) for network in networks["prod"]][:1] == ["172.16.16.0/20"]
    with grid.emulator.lock:
        made = grid.emulator.deployments.of("rennes")[0]
    assert (made.environment, made.key) == ("debian12-min", "ssh-ed25519 AAAA alice\n")

    again = G5k(conf(("paravance", 2, "compute"), ("parasilo", 1, "control")))
    assert again.is_created()
    roles, _ = again.init()
    assert names(roles["compute"]) == ["paravance-1", "paravance-2"]
    assert grid.posts("/jobs") == 1  # it was found by its name

    again.destroy(wait=True)
    assert grid.states()["rennes"] == ["error"]
    assert not again.is_created()


def test_enoslib_on_two_sites(grid: Grid) -> None:
    provider = G5k(conf(("paravance", 1, "west"), ("econome", 2, "south")))
    roles, networks = provider.init()
    assert names(roles["west"]) == ["paravance-1"]
    assert names(roles["south"]) == ["econome-1", "econome-2"]
    assert len({str(network.network) for network in networks["prod"]}) == 4  # IPv4 and IPv6
    jobs = {job.site: job for job in provider.jobs}
    starts = {job.scheduled_at for job in jobs.values()}
    assert len(starts) == 1  # both start at the same moment
    provider.destroy(wait=True)
    assert grid.states() == {"rennes": ["error"], "nantes": ["error"]}


def test_enoslib_forgets_deployed_nodes_when_others_failed(grid: Grid) -> None:
    """A defect of EnOSlib 10: each attempt forgets the nodes that the one before deployed."""
    grid.faults.fail_to_deploy(["paravance-2.rennes.grid5000.fr"], times=1)
    provider = G5k(conf(("paravance", 3, "compute")))
    roles, _ = provider.init()
    assert grid.posts("/deployments") == 2
    assert names(roles["compute"]) == ["paravance-2"]


def test_enoslib_says_nothing_of_nodes_that_never_come_up(grid: Grid) -> None:
    grid.faults.fail_to_deploy(["paravance-2.rennes.grid5000.fr"])
    provider = G5k(conf(("paravance", 2, "compute")))
    roles, _ = provider.init()
    assert grid.posts("/deployments") == 3
    assert names(roles["compute"]) == []
    assert [host.fqdn.split(".")[0] for host in provider.undeployed] == ["paravance-2"]


def test_enoslib_searches_a_slot(grid: Grid) -> None:
    grid.occupy("{cluster='parasilo'}/nodes=2,walltime=2")
    grid.after(10)
    now = int(grid.clock.now())
    provider = G5k(conf(("parasilo", 1, "control")))
    assert not provider.test_slot(now + 60, now + 7200)
    assert provider.test_slot(now + 3 * 3600, now + 4 * 3600)
    with pytest.raises(InvalidReservationTime) as refused:
        provider.async_init(start_time=now + 60)
    possible = dt.datetime.fromtimestamp(now - 8 + 7200, PARIS)
    assert abs(refused.value.datetime - possible) < dt.timedelta(seconds=5)
    provider.async_init(start_time=int(refused.value.datetime.timestamp()))
    assert grid.states()["rennes"] == ["running", "waiting"]


def test_enoslib_and_refusals(grid: Grid) -> None:
    provider = G5k(conf(("paravance", 1, "compute")))
    with pytest.raises(InvalidReservationTooOld):
        provider.async_init(start_time=int(grid.clock.now()) - 60)
    provider = G5k(conf(("paravance", 9, "compute")))
    with pytest.raises(InvalidReservationCritical) as refused:
        provider.async_init()
    assert "There are not enough resources for your request" in refused.value.msg
    grid.faults.refuse_jobs("[ADMISSION RULE] Error: too much for one day")
    with pytest.raises(InvalidReservationCritical) as refused:
        G5k(conf(("paravance", 1, "compute"))).async_init()
    assert "too much for one day" in refused.value.msg


def test_enoslib_leaves_nothing_when_there_is_no_common_slot(grid: Grid) -> None:
    grid.occupy("nodes=3,walltime=48", "nantes")
    with pytest.raises(InvalidReservationCritical, match="within given time window"):
        G5k(conf(("paravance", 1, "west"), ("econome", 1, "south"))).init()
    assert grid.states()["rennes"] in ([], ["error"])  # which site comes first is chance


def test_enoslib_leaves_the_first_job_when_the_second_site_refuses(grid: Grid) -> None:
    """A defect of EnOSlib 10: only what says that the date is bad makes it clean up."""

    def only_one(job: Job, jobs: Jobs) -> str | None:
        return "[ADMISSION RULE] Error: too much" if any(map(jobs.of, SITES)) else None

    grid.emulator.jobs.admission.append(only_one)
    provider = G5k(conf(("paravance", 1, "west"), ("econome", 1, "south")))
    with pytest.raises(InvalidReservationCritical) as refused:
        provider.init()
    assert "too much" in refused.value.msg
    assert sorted(grid.states().values()) == [[], ["waiting"]]
    provider.destroy()
    assert sorted(grid.states().values()) == [[], ["error"]]


def test_enoslib_takes_no_walltime_of_a_day_on_two_sites(grid: Grid) -> None:
    """A defect of EnOSlib 10: it computes walltimes as times of the day.

    It first takes off how much later than its slot a reservation is made, so whether `init`
    fails hangs on how fast the machine is; the computation itself always does.
    """
    groups = (("paravance", 1, "west"), ("econome", 1, "south"))
    with pytest.raises(ValueError, match="hour must be in"):
        G5k(conf(*groups, walltime="24:00:00")).offset_walltime(0)
    shortened = G5k(conf(*groups, walltime="24:00:00"))
    shortened.offset_walltime(-1)
    assert shortened.provider_conf.walltime == "23:59:59"
    G5k(conf(groups[0], walltime="24:00:00")).init()
    assert sorted(grid.states().values()) == [[], ["running"]]


def test_enoslib_reads_dates_for_two_sites_in_the_time_zone_of_the_machine(
    grid: Grid, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A defect of EnOSlib 10: for one site the same date is one of Paris."""
    with monkeypatch.context() as zone:
        zone.setenv("TZ", "UTC")
        time.tzset()
        at = dt.datetime.fromtimestamp(int(grid.clock.now()) + 86400, PARIS)
        date = at.strftime("%Y-%m-%d %H:%M:%S")
        two = [("paravance", 1, "west"), ("econome", 1, "south")]
        late = {}
        for groups in (two, [("parasilo", 1, "west")]):
            provider = G5k(conf(*groups, reservation=date, job_name=f"on {len(groups)}"))
            provider.reserve()
            starts = {job.scheduled_at for job in provider.jobs}
            late[len(groups)] = [start - at.timestamp() for start in starts]
    time.tzset()
    offset = at.utcoffset()
    assert offset is not None
    assert late == {1: [0], 2: [offset.total_seconds()]}


def test_enoslib_and_vlans(grid: Grid) -> None:
    made = conf()
    first, second = (
        en.G5kNetworkConf(type="kavlan", roles=[role], site="rennes") for role in ("main", "side")
    )
    made.add_network_conf(first).add_network_conf(second)
    made.add_machine(roles=["compute"], cluster="paravance", nodes=1, primary_network=first,
                     secondary_networks=[second])  # fmt: skip
    provider = G5k(made)
    roles, networks = provider.init()
    assert names(roles["compute"]) == ["paravance-1-kavlan-4"]
    assert "10.4.64.0/18" in [str(network.network) for network in networks["side"]]
    with grid.emulator.lock:
        vlans = grid.emulator.vlans
        assert vlans.of("paravance-1.rennes.grid5000.fr") == "4"
        assert vlans.of("paravance-1-eth1.rennes.grid5000.fr") == "5"
    provider.destroy()


def test_enoslib_and_a_job_that_is_killed(grid: Grid, monkeypatch: pytest.MonkeyPatch) -> None:
    def sleep(seconds: float) -> None:
        with grid.emulator.lock:
            for job in grid.emulator.jobs.of("rennes"):
                grid.emulator.jobs.kill(job, "maintenance")
        grid.after(seconds)

    monkeypatch.setattr(g5k_api_utils, "time", types.SimpleNamespace(sleep=sleep))
    with pytest.raises(Exception, match="is in error state"):
        G5k(conf(("paravance", 1, "compute"))).init()


def test_enoslib_leaves_its_jobs_behind_when_it_is_interrupted(
    grid: Grid, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sleep(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(g5k_api_utils, "time", types.SimpleNamespace(sleep=sleep))
    provider = G5k(conf(("paravance", 1, "compute")))
    with pytest.raises(KeyboardInterrupt):
        provider.init()
    assert grid.states()["rennes"] == ["waiting"]
    provider.destroy(wait=False)
    grid.after(10)
    assert grid.states()["rennes"] == ["error"]


def test_enoslib_refuses_two_jobs_of_a_name(grid: Grid) -> None:
    for _ in range(2):
        running_job(grid, name="try")
    with pytest.raises(EnosG5kDuplicateJobsError):
        G5k(conf(("paravance", 1, "compute"))).init()


# ---------------------------------------------------------------- the command


def test_the_command_says_where_it_is(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.grid5000", "--sites", "rennes:paravance=2"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            lines = [process.stdout.readline() for _ in range(4)]
            uri = lines[1].split()[1]
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            sites = json.load(opener.open(f"{uri}/sites"))
            assert [site["uid"] for site in sites["items"]] == ["rennes"]
        finally:
            process.terminate()


def test_the_example_of_the_readme(grid: Grid) -> None:
    readme = (Path(__file__).parents[1] / "grid5000/README.md").read_text()
    example = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)[0]
    exec(compile(example, "README.md", "exec"), {})
