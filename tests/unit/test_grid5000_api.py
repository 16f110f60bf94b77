"""Calls and answers of the router, without a socket."""

import json
from typing import Any

import pytest

from tests.grid5000 import ClusterSpec, Emulator, ManualClock
from tests.grid5000.api import Response
from tests.grid5000.platform import Sites


class Caller:
    """Calls the API as alice, unless it is said otherwise."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        mercantour = ClusterSpec(1, queues=("production",))
        sites: Sites = {
            "rennes": {"paravance": 3},
            "nantes": {"econome": 2, "mercantour": mercantour},
        }
        self.emulator = Emulator.of(sites, clock=self.clock)

    def __call__(self, method: str, path: str, body: Any = None, who: str | None = "alice",
                 **query: str) -> Response:  # fmt: skip
        return self.emulator.api.respond(method, path, query, body, who)

    def get(self, path: str, **query: str) -> Any:
        answer = self("GET", path, **query)
        assert answer.status == 200, answer.body
        assert answer.content_type.startswith("application/json")
        return answer.document

    def submit(self, site: str = "rennes", **job: Any) -> Any:
        answer = self("POST", f"/sites/{site}/jobs", {"command": "sleep 1d", **job})
        assert answer.status == 201, answer.body
        return answer.document


@pytest.fixture
def call() -> Caller:
    return Caller()


# ---------------------------------------------------------------- reference and monitoring


def test_sites_and_clusters(call: Caller) -> None:
    sites = call.get("/sites")
    assert (sites["total"], sites["offset"]) == (2, 0)
    assert [site["uid"] for site in sites["items"]] == ["rennes", "nantes"]
    rennes = call.get("/sites/rennes")
    assert rennes["kavlans"]["default"]["gateway"] == "172.16.31.254"
    assert set(rennes["kavlans"]) == {"default", *"123456789", "11"}
    assert rennes["ipv6"]["site_index"] == 1
    dns = call.get("/sites/rennes/servers/dns")
    assert dns["network_adapters"]["default"]["ip"] == "172.16.16.1"
    node = call.get("/sites/rennes/clusters/paravance/nodes/paravance-2")
    assert node["network_adapters"][0]["ip"] == "172.16.17.2"
    assert node["architecture"]["nb_cores"] == 16


def test_clusters_of_queues(call: Caller) -> None:
    def clusters(**query: str) -> list[str]:
        return [item["uid"] for item in call.get("/sites/nantes/clusters", **query)["items"]]

    assert clusters() == ["econome"]
    assert clusters(queues="production") == ["mercantour"]
    assert clusters(queues="all") == ["econome", "mercantour"]
    assert call("GET", "/sites/nantes/clusters/mercantour").status == 404


@pytest.mark.parametrize("prefix", ["", "/stable", "/3.0", "/sid"])
def test_links_have_the_version_of_the_call(call: Caller, prefix: str) -> None:
    site = call.get(f"{prefix}/sites/rennes/")
    links = {link["rel"]: link["href"] for link in site["links"]}
    assert links["self"] == f"{prefix}/sites/rennes"
    assert links["parent"] == f"{prefix}/sites"
    for rel, href in links.items():
        if rel not in ("storage", "metrics"):
            call.get(href)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/sites/brest", 404),
        ("GET", "/sites/rennes/clusters/econome", 404),
        ("GET", "/sites/rennes/clusters/paravance/nodes/paravance-9", 404),
        ("GET", "/sites/rennes/jobs/7", 404),
        ("GET", "/sites/rennes/deployments/D-7", 404),
        ("GET", "/sites/rennes/vlans/99", 404),
        ("GET", "/sites/rennes/versions/0", 404),
        ("GET", "/nowhere", 404),
        ("PUT", "/sites", 405),
        ("POST", "/sites/rennes/jobs", 400),
        ("POST", "/sites/rennes/vlans/4/nodes", 422),
    ],
)
def test_errors_are_plain_text(call: Caller, method: str, path: str, status: int) -> None:
    answer = call(method, path)
    assert (answer.status, answer.content_type) == (status, "text/plain; charset=utf-8")
    assert answer.body


def test_the_whole_description(call: Caller) -> None:
    items = call.get("/", deep="1")["items"]
    nodes = items["sites"]["rennes"]["clusters"]["paravance"]["nodes"]
    assert [node["uid"] for node in nodes] == ["paravance-1", "paravance-2", "paravance-3"]


def test_versions(call: Caller) -> None:
    version = call.get("/")["version"]
    paths = ["", "/sites", "/sites/rennes", "/sites/rennes/clusters/paravance",
             "/sites/rennes/clusters/paravance/nodes/paravance-1"]  # fmt: skip
    for path in paths:
        assert call.get(f"{path}/versions")["items"][0]["uid"] == version
        assert call.get(f"{path}/versions/{version}")["type"] == "version"


def test_the_state_of_a_cluster(call: Caller) -> None:
    job = call.submit(resources="nodes=2,walltime=2", reservation="now")
    call.clock.skip(10)
    nodes = call.get("/sites/rennes/clusters/paravance/status")["nodes"]
    assert [node["soft"] for node in nodes.values()] == ["busy", "busy", "free"]
    reservation = nodes["paravance-1.rennes.grid5000.fr"]["reservations"][0]
    assert (reservation["uid"], reservation["walltime"]) == (job["uid"], 7200)
    unknown = call("GET", "/sites/rennes/clusters/paravance/status", who=None).document
    assert "reservations" not in unknown["nodes"]["paravance-1.rennes.grid5000.fr"]
    assert set(call.get("/sites/rennes/status")) >= {"nodes", "vlans", "subnets", "disks"}
    assert "disks" not in call.get("/sites/rennes/status", disks="no")


def test_the_start_of_what_waits(call: Caller) -> None:
    """A reservation's is its date, any other job's is 0: clients stumble over that."""
    call.submit(resources="nodes=3,walltime=2")
    waits = call.submit(resources="nodes=3,walltime=2")
    assert "scheduled_at" not in waits
    assert waits["assigned_nodes"] == []
    call.clock.skip(10)
    waits = call.get(f"/sites/rennes/jobs/{waits['uid']}")
    assert (waits["state"], waits["started_at"]) == ("waiting", 0)
    assert waits["scheduled_at"] == call.clock.now() - 10 + 2 + 7200
    assert len(waits["assigned_nodes"]) == 3


# ---------------------------------------------------------------- jobs


def test_a_job(call: Caller) -> None:
    made = call.submit(resources="{type='kavlan'}/vlan=1+slash_22=1+nodes=1", name="try",
                       types=["deploy"])  # fmt: skip
    assert made["state"] == "waiting"
    call.clock.skip(10)
    job = call.get(f"/sites/rennes/jobs/{made['uid']}")
    assert job["state"] == "running"
    assert job["assigned_nodes"] == ["paravance-1.rennes.grid5000.fr"]
    assert job["resources_by_type"]["vlans"] == ["4"]
    assert job["resources_by_type"]["subnets"] == ["10.132.0.0/22"]
    assert len(job["resources_by_type"]["cores"]) == 16
    assert (job["name"], job["user"], job["project"]) == ("try", "alice", "discovery")


def test_a_job_without_a_name_has_none(call: Caller) -> None:
    assert "name" not in call.submit()


def test_jobs_are_found_by_what_they_are(call: Caller) -> None:
    uids = [call.submit(name=name)["uid"] for name in ("a", "b", "a")]
    call.clock.skip(10)

    def found(**query: str) -> list[int]:
        return [job["uid"] for job in call.get("/sites/rennes/jobs", **query)["items"]]

    assert found() == uids[::-1]
    assert found(name="a") == [uids[2], uids[0]]
    assert found(user="bob") == []
    assert found(state="waiting,running") == uids[::-1]
    assert found(limit="1", offset="1") == [uids[1]]
    assert call.get("/sites/rennes/jobs", limit="1")["total"] == 3
    assert "assigned_nodes" not in call.get("/sites/rennes/jobs")["items"][0]
    assert "assigned_nodes" in call.get("/sites/rennes/jobs", resources="yes")["items"][0]


def test_a_job_that_is_about_to_launch_is_not_found_by_state(call: Caller) -> None:
    call.submit()
    call.clock.skip(2.5)
    assert call.get("/sites/rennes/jobs")["items"][0]["state"] == "tolaunch"
    assert call.get("/sites/rennes/jobs", state="waiting,tolaunch,running")["items"] == []


def test_the_end_of_a_job(call: Caller) -> None:
    path = f"/sites/rennes/jobs/{call.submit()['uid']}"
    assert call("DELETE", path, who="bob").status == 403
    assert call("DELETE", path, who=None).status == 403
    answer = call("DELETE", path)
    assert (answer.status, answer.body) == (202, b"")
    assert "REGISTERED" in answer.headers["X-Oar-Info"]
    again = call("DELETE", path)
    assert again.status == 400
    assert b"This job was already killed" in again.body


def test_refusals_come_in_the_text_of_the_api(call: Caller) -> None:
    answer = call("POST", "/stable/sites/rennes/jobs",
                  {"command": "sleep 1", "resources": "nodes=9"})  # fmt: skip
    assert answer.status == 400
    text = answer.body.decode()
    assert text.startswith("Request to https://api.grid5000.fr/stable/sites/rennes/internal/")
    told = json.loads(text[text.index("{") :])
    assert told["message"] == "There are not enough resources for your request"


@pytest.mark.parametrize(
    ("job", "text"),
    [
        ({}, "you must give a :command to execute on launch"),
        ({"command": "sleep 1", "reservation": 1720}, "`reservation` should be a String."),
        ({"reservation": "1720"}, "Syntax error in reservation start date"),
    ],
)
def test_jobs_that_are_not_valid(call: Caller, job: dict[str, Any], text: str) -> None:
    answer = call("POST", "/sites/rennes/jobs", job)
    assert answer.status == 400
    assert text in answer.body.decode()


def test_somebody_unknown_may_only_look(call: Caller) -> None:
    answer = call("POST", "/sites/rennes/jobs", {"command": "sleep 1"}, who=None)
    assert answer.status == 403
    assert answer.body == b"You are not authorized to access this resource"


def test_another_walltime(call: Caller) -> None:
    path = f"/sites/rennes/jobs/{call.submit()['uid']}/walltime"
    assert call("POST", path, {"walltime": "+1"}).status == 403  # it doesn't run yet
    call.clock.skip(10)
    assert call("POST", path, {"walltime": "+1:30"}).status == 202
    found = call.get(path)
    assert (found["walltime"], found["granted"]) == ("2:30:0", "1:30:0")
    assert call("POST", path, {"walltime": "4:00:00"}, who="bob").status == 403
    assert call("POST", path, {"walltime": "soon"}).status == 400


# ---------------------------------------------------------------- deployments and VLANs


def test_a_deployment(call: Caller) -> None:
    job = call.submit(resources="{type='kavlan'}/vlan=1+nodes=2", types=["deploy"])
    call.clock.skip(10)
    nodes = call.get(f"/sites/rennes/jobs/{job['uid']}")["assigned_nodes"]
    body = {"nodes": nodes, "environment": "debian12-min", "key": "ssh-rsa me", "vlan": "4"}
    answer = call("POST", "/sites/rennes/deployments", body)
    assert answer.status == 201
    uid = answer.document["uid"]
    assert answer.document["status"] == "processing"
    assert answer.headers["Location"] == f"/sites/rennes/deployments/{uid}"
    call.clock.skip(180)
    found = call.get(f"/sites/rennes/deployments/{uid}")
    assert found["status"] == "terminated"
    assert {node: result["state"] for node, result in found["result"].items()} == dict.fromkeys(
        nodes, "OK"
    )
    listed = call.get("/sites/rennes/deployments", user="alice", status="terminated")
    assert [item["uid"] for item in listed["items"]] == [uid]
    inside = call.get("/sites/rennes/vlans/4/nodes")["items"]
    assert [item["uid"] for item in inside] == nodes


def test_deployments_that_are_refused(call: Caller) -> None:
    def refusal(user: str | None = "alice", **body: Any) -> tuple[int, str]:
        answer = call("POST", "/sites/rennes/deployments", body, who=user)
        return answer.status, answer.body.decode()

    node = "paravance-1.rennes.grid5000.fr"
    assert refusal(nodes=[], environment="debian12-min")[0] == 400
    assert refusal(nodes=[node])[0] == 400
    status, text = refusal(nodes=[node], environment="debian12-minimal")
    assert (status, text[:26]) == (400, "Cannot launch deployment: ")
    assert refusal(nodes=[node], environment="debian12-min")[0] == 500
    assert refusal(user=None, nodes=[node], environment="debian12-min")[0] == 403


def test_vlans(call: Caller) -> None:
    job = call.submit(resources="{type='kavlan'}/vlan=1+nodes=1", types=["deploy"])
    call.clock.skip(10)
    node = call.get(f"/sites/rennes/jobs/{job['uid']}")["assigned_nodes"][0]
    second = node.replace(".", "-eth1.", 1)
    assert call.get("/sites/rennes/vlans")["total"] == 12
    assert call.get("/sites/rennes/vlans/4")["type"] == "kavlan"
    answer = call("POST", "/sites/rennes/vlans/4/nodes", [second, "x-1.rennes.grid5000.fr"])
    assert {name: found["status"] for name, found in answer.document.items()} == {
        second: "success",
        "x-1.rennes.grid5000.fr": "failure",
    }
    assert call("POST", "/sites/rennes/vlans/5/nodes", [second]).status == 403
    assert call.get(f"/sites/rennes/vlans/nodes/{second}")["vlan"] == "4"
    asked = call("POST", "/sites/rennes/vlans/nodes", [node, second]).document["items"]
    assert [item["vlan"] for item in asked] == ["DEFAULT", "4"]
    assert call.get("/sites/rennes/vlans/users")["items"][0]["uid"] == "alice"
    assert call.get("/sites/rennes/vlans/users/alice")["vlans"] == ["4"]
    assert call.get("/sites/rennes/vlans/4/users/alice")["status"] == "authorized"
    assert call.get("/sites/rennes/vlans/4/users/bob")["status"] == "unauthorized"
    # KaVLAN's own way, which execo goes.
    bare = call("POST", "/sites/rennes/vlans/4", {"nodes": [second]}).document
    assert bare == {second: "unchanged"}


def test_the_rest(call: Caller) -> None:
    job = call.submit()
    path = f"/sites/rennes/firewall/{job['uid']}"
    assert call("POST", path, [{"port": 22}]).document == [{"port": 22}]
    assert call("DELETE", path).status == 204
    assert call.get(path) == []
    access = "/sites/rennes/storage/home/alice/access"
    body = {"ipv4": ["10.0.0.1"], "termination": {"job": job["uid"], "site": "rennes"}}
    assert call("POST", access, body).status == 201
    assert len(call.get(access)) == 1
    assert call("POST", "/stitcher/stitchings", {"id": "11", "sdx_vlan_id": "9"}).status == 201
    assert call.get("/stitcher/stitchings")["total"] == 1
    assert call("DELETE", "/stitcher/stitchings/11").status == 204
    metrics = call.get("/sites/rennes/metrics", nodes="paravance-1", metrics="wattmetre_power_watt")
    assert len(metrics) == 30
    resources = call.get("/sites/rennes/internal/oarapi/resources/details.json", limit="1")
    assert resources["total"] == 48
