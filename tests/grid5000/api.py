"""The router: from a call of the REST API to its answer, without a socket."""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from . import deployments, jobs, monitoring, reference, vlans
from .platform import ENVIRONMENTS, Cluster, Node, Site
from .resources import BadRequest, format_walltime, parse_walltime

if TYPE_CHECKING:
    from .emulator import Emulator

JSON = "application/json; charset=utf-8"
TEXT = "text/plain; charset=utf-8"
ITEM = "application/vnd.grid5000.item+json"
COLLECTION = "application/vnd.grid5000.collection+json"

Document = dict[str, Any]
Query = Mapping[str, str]


@dataclass(frozen=True)
class Response:
    status: int
    body: bytes = b""
    content_type: str = TEXT
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def document(self) -> Any:
        return json.loads(self.body)


class Failure(Exception):
    """A call that is answered with an error: its text is the whole body."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


@dataclass(frozen=True)
class Call:
    method: str
    prefix: str
    path: str
    query: Query
    body: Any
    user: str | None

    @property
    def who(self) -> str:
        """The user; a call without one may only look."""
        if self.user is None:
            raise Failure(403, "You are not authorized to access this resource")
        return self.user

    def link(self, rel: str, path: str, media_type: str = ITEM) -> Document:
        return {"rel": rel, "href": f"{self.prefix}{path}", "type": media_type}

    def links(self, path: str, media_type: str = ITEM) -> list[Document]:
        parent = path.rsplit("/", 1)[0] or "/"
        return [self.link("self", path, media_type), self.link("parent", parent)]

    def page(self, default: int, most: int) -> tuple[int, int]:
        """Offset and limit of a collection that is given in pages."""
        offset = max(int(self.query.get("offset", 0)), 0)
        return offset, min(int(self.query.get("limit", default)), most)


Handler = Callable[..., Any]
_ROUTES: list[tuple[re.Pattern[str], dict[str, Handler]]] = []


def route(pattern: str, method: str = "GET") -> Callable[[Handler], Handler]:
    """Let a method answer the calls whose path looks like `/sites/{site}/jobs`."""
    regex = re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", pattern))

    def register(handler: Handler) -> Handler:
        for known, handlers in _ROUTES:
            if known == regex:
                handlers[method] = handler
                return handler
        _ROUTES.append((regex, {method: handler}))
        return handler

    return register


class Api:
    """Answers calls on an emulator; `respond` is the only thing that others need."""

    def __init__(self, emulator: Emulator) -> None:
        self._emulator = emulator
        self._firewall: dict[int, list[Document]] = {}
        self._storage: dict[tuple[str, str, str], Document] = {}
        self._stitchings: dict[str, Document] = {}

    def respond(
        self,
        method: str,
        path: str,
        query: Query | None = None,
        body: Any = None,
        user: str | None = None,
    ) -> Response:
        """The answer to a call of `user`, None being somebody unknown.

        `path` may start with a version, `/stable` or `/3.0`: links in the answer have it, too.
        """
        found = re.fullmatch(r"(/(?:stable|sid|\d+\.\d+))?(/.*)?", path.rstrip("/"))
        prefix, rest = (found[1] or "", found[2] or "") if found else ("", path)
        call = Call(method, prefix, rest.removesuffix(".json") or "/", query or {}, body, user)
        with self._emulator.lock:
            self._emulator.advance()
            try:
                return self._answer(call)
            except Failure as failure:
                return Response(failure.status, failure.text.encode())

    def _answer(self, call: Call) -> Response:
        for pattern, handlers in _ROUTES:
            found = pattern.fullmatch(call.path)
            if found:
                if call.method not in handlers:
                    raise Failure(405, "Method Not Allowed")
                answer = handlers[call.method](self, call, **found.groupdict())
                return answer if isinstance(answer, Response) else _json(answer)
        raise Failure(404, f"Cannot find resource {call.path}")

    # ---------------------------------------------------------------- reference API

    def _site(self, name: str) -> Site:
        found = self._emulator.platform.sites.get(name)
        if found is None:
            raise Failure(404, f"Cannot find resource /sites/{name}")
        return found

    def _cluster(self, site: str, name: str) -> Cluster:
        found = self._site(site).clusters.get(name)
        if found is None:
            raise Failure(404, f"Cannot find resource /sites/{site}/clusters/{name}")
        return found

    def _refer(self, call: Call, path: str, document: Document, *below: str) -> Document:
        """Complete a document of the reference API."""
        version = reference.version(self._emulator.platform)
        links = [call.link(rel, f"{path}/{rel}", COLLECTION) for rel in below]
        links += call.links(path)
        links.append(call.link("version", f"{path}/versions/{version}"))
        links.append(call.link("versions", f"{path}/versions", COLLECTION))
        return {**document, "version": version, "links": links}

    def _collect(self, call: Call, items: Iterable[Document], total: int | None = None) -> Document:
        listed = list(items)
        return {
            "total": len(listed) if total is None else total,
            "offset": 0,
            "items": listed,
            "links": call.links(call.path, COLLECTION),
        }

    def _described(self, call: Call, items: Iterable[Document]) -> Document:
        """A collection of the reference API."""
        full = [self._refer(call, f"{call.path}/{item['uid']}", item) for item in items]
        version = reference.version(self._emulator.platform)
        return {**self._collect(call, full), "version": version}

    def _one(self, call: Call, items: Iterable[Document], uid: str) -> Document:
        for item in items:
            if str(item["uid"]) == uid:
                return self._refer(call, call.path, item)
        raise Failure(404, f"Cannot find resource {call.path}")

    # These come first: a site can't be called versions.
    @route("(?P<of>(?:/sites/[^/]+(?:/clusters/[^/]+(?:/nodes/[^/]+)?)?|/sites|))/versions")
    def versions(self, call: Call, of: str) -> Document:
        self._known(call, of)
        commit = reference.commit(self._emulator.platform)
        return self._collect(call, [{**commit, "links": call.links(call.path)}])

    @route("(?P<of>(?:/sites/[^/]+(?:/clusters/[^/]+(?:/nodes/[^/]+)?)?|/sites|))/versions/{uid}")
    def version(self, call: Call, of: str, uid: str) -> Document:
        self._known(call, of)
        commit = reference.commit(self._emulator.platform)
        if uid not in ("latest", commit["uid"]):
            raise Failure(404, f"Reference (branch or commit) '{uid}' cannot be found.")
        return {**commit, "links": call.links(call.path)}

    def _known(self, call: Call, path: str) -> None:
        """Answer 404 when there is nothing at `path`."""
        self._answer(Call("GET", call.prefix, path or "/", {"queues": "all"}, None, call.user))

    @route("/")
    def root(self, call: Call) -> Document:
        platform = self._emulator.platform
        if call.query.get("deep"):
            items = reference.deep(platform, self._emulator.machines)
            return {"total": len(items), "offset": 0, "items": items, **reference.root(platform)}
        document = {**reference.root(platform), "timestamp": int(self._emulator.clock.now())}
        return self._refer(call, "", document, "sites", "network_equipments")

    @route("/network_equipments")
    def backbone(self, call: Call) -> Document:
        return self._described(call, reference.backbone(self._emulator.platform))

    @route("/network_equipments/{uid}")
    def backbone_item(self, call: Call, uid: str) -> Document:
        return self._one(call, reference.backbone(self._emulator.platform), uid)

    def _site_document(self, call: Call, site: Site) -> Document:
        below = (
            "clusters", "network_equipments", "pdus", "servers", "jobs", "environments",
            "deployments", "vlans", "metrics", "storage", "status",
        )  # fmt: skip
        return self._refer(call, f"/sites/{site.name}", reference.site(site), *below)

    @route("/sites")
    def sites(self, call: Call) -> Document:
        sites = self._emulator.platform.sites.values()
        return self._collect(call, [self._site_document(call, site) for site in sites])

    @route("/sites/{site}")
    def site(self, call: Call, site: str) -> Document:
        return self._site_document(call, self._site(site))

    @route("/sites/{site}/clusters")
    def clusters(self, call: Call, site: str) -> Document:
        wanted = _queues(call.query)
        found = [c for c in self._site(site).clusters.values() if wanted & set(c.spec.queues)]
        return self._described(call, [reference.cluster(cluster) for cluster in found])

    @route("/sites/{site}/clusters/{cluster}")
    def cluster(self, call: Call, site: str, cluster: str) -> Document:
        found = self._cluster(site, cluster)
        if not _queues(call.query) & set(found.spec.queues):
            raise Failure(404, f"Cannot find resource {call.path}")
        return self._refer(call, call.path, reference.cluster(found), "nodes", "status")

    def _node_document(self, node: Node, cluster: Cluster) -> Document:
        emulator = self._emulator
        return reference.node(node, cluster, emulator.platform, emulator.machines)

    @route("/sites/{site}/clusters/{cluster}/nodes")
    def nodes(self, call: Call, site: str, cluster: str) -> Document:
        found = self._cluster(site, cluster)
        return self._described(call, [self._node_document(n, found) for n in found.nodes])

    @route("/sites/{site}/clusters/{cluster}/nodes/{node}")
    def node(self, call: Call, site: str, cluster: str, node: str) -> Document:
        found = self._cluster(site, cluster)
        nodes = [self._node_document(n, found) for n in found.nodes if n.name == node]
        return self._one(call, nodes, node)

    @route("/sites/{site}/servers")
    def servers(self, call: Call, site: str) -> Document:
        return self._described(call, reference.servers(self._site(site)))

    @route("/sites/{site}/servers/{uid}")
    def server(self, call: Call, site: str, uid: str) -> Document:
        return self._one(call, reference.servers(self._site(site)), uid)

    @route("/sites/{site}/pdus")
    def pdus(self, call: Call, site: str) -> Document:
        return self._described(call, reference.pdus(self._site(site)))

    @route("/sites/{site}/pdus/{uid}")
    def pdu(self, call: Call, site: str, uid: str) -> Document:
        return self._one(call, reference.pdus(self._site(site)), uid)

    @route("/sites/{site}/network_equipments")
    def network_equipments(self, call: Call, site: str) -> Document:
        return self._described(call, reference.network_equipments(self._site(site)))

    @route("/sites/{site}/network_equipments/{uid}")
    def network_equipment(self, call: Call, site: str, uid: str) -> Document:
        return self._one(call, reference.network_equipments(self._site(site)), uid)

    @route("/sites/{site}/environments")
    def environments(self, call: Call, site: str) -> Document:
        self._site(site)
        return self._collect(call, [_environment(call, site, name) for name in ENVIRONMENTS])

    @route("/sites/{site}/environments/{uid}")
    def environment(self, call: Call, site: str, uid: str) -> Document:
        self._site(site)
        found = [name for name in ENVIRONMENTS if uid in (name, _environment_uid(name))]
        if not found:
            raise Failure(404, f"Cannot find environment {uid}")
        return _environment(call, site, found[0])

    # ---------------------------------------------------------------- monitoring

    def _status(self, call: Call, site: Site, clusters: Iterable[Cluster], whole: bool) -> Document:
        query = call.query
        # Who isn't known doesn't see who has reserved what.
        found = monitoring.status(
            site,
            clusters,
            self._emulator.jobs,
            self._emulator.platform,
            self._emulator.clock.now(),
            with_jobs=query.get("job_details") != "no" and call.user is not None,
            with_waiting=query.get("waiting") != "no" and call.user is not None,
            only_node=query.get("network_address"),
            with_networks=whole,
        )
        for kind in ("nodes", "disks", "vlans", "subnets"):
            if query.get(kind) == "no":
                found.pop(kind, None)
        return {**found, "links": call.links(call.path)}

    @route("/sites/{site}/status")
    def site_status(self, call: Call, site: str) -> Document:
        found = self._site(site)
        return self._status(call, found, found.clusters.values(), whole=True)

    @route("/sites/{site}/clusters/{cluster}/status")
    def cluster_status(self, call: Call, site: str, cluster: str) -> Document:
        return self._status(call, self._site(site), [self._cluster(site, cluster)], whole=False)

    @route("/sites/{site}/health")
    def health(self, call: Call, site: str) -> Document:
        self._site(site)
        return {"status": "OK"}

    @route("/sites/{site}/internal/oarapi/resources/details")
    def oar_resources(self, call: Call, site: str) -> Document:
        """OAR's own list of resources, core by core: execo reads it."""
        items = []
        for cluster in self._site(site).clusters.values():
            for node in cluster.nodes:
                state = self._emulator.jobs.hardware.get(node.fqdn, "alive").capitalize()
                for core in range(cluster.spec.cores):
                    properties = jobs.properties(cluster, node)
                    items.append({**properties, "state": state, "cpuset": str(core)})
        for number, item in enumerate(items, start=1):
            item["id"] = number
        return self._collect(call, items)

    @route("/sites/{site}/metrics")
    def metrics(self, call: Call, site: str) -> list[Document]:
        """A constant power consumption, every ten seconds of the last five minutes."""
        now = int(self._emulator.clock.now())
        start = int(call.query.get("start_time", now - 300))
        end = int(call.query.get("end_time", now))
        names = {node.name for node in self._site(site).nodes}
        nodes = [name for name in call.query.get("nodes", "").split(",") if name in names]
        wanted = call.query.get("metrics", "wattmetre_power_watt").split(",")
        return [
            {
                "timestamp": dt.datetime.fromtimestamp(at, dt.UTC).isoformat(),
                "device_id": node,
                "metric_id": metric,
                "value": 100.0,
                "labels": {},
            }
            for metric in wanted
            if metric == "wattmetre_power_watt"
            for node in nodes
            for at in range(max(start, end - 3600), end, 10)
        ]

    # ---------------------------------------------------------------- jobs

    def _job(self, site: str, uid: str) -> jobs.Job:
        self._site(site)
        found = self._emulator.jobs.get(site, uid)
        if found is None:
            raise Failure(404, f"Couldn't find OAR::Job with 'job_id'={uid}")
        return found

    def _job_document(self, call: Call, job: jobs.Job, with_resources: bool) -> Document:
        now = self._emulator.clock.now()
        pace_s = self._emulator.jobs.pace.scheduling_s
        described = monitoring.job(job, now, pace_s)
        if with_resources:
            described |= monitoring.resources(job, self._emulator.platform, now, pace_s)
        site = f"/sites/{job.asked.site}"
        links = [call.link("self", f"{site}/jobs/{job.uid}"), call.link("parent", site)]
        return {**described, "links": links}

    @route("/sites/{site}/jobs")
    def list_jobs(self, call: Call, site: str) -> Document:
        self._site(site)
        query = call.query
        found = self._emulator.jobs.of(site)
        if "state" in query:
            # As it is there: what is asked for is capitalized, so toLaunch is never found.
            states = {state.strip().lower() for state in query["state"].split(",")} - {"tolaunch"}
            found = [job for job in found if job.state in states]
        for name, value in (
            ("user", lambda job: job.asked.user),
            ("name", lambda job: job.asked.name),
            ("project", lambda job: job.project),
            ("queue", lambda job: job.queue),
            ("job_id", lambda job: str(job.uid)),
        ):
            if query.get(name):
                found = [job for job in found if value(job) == query[name]]
        offset, limit = call.page(50, 500)
        details = query.get("resources", "no") != "no"
        items = [self._job_document(call, j, details) for j in found[offset : offset + limit]]
        return {**self._collect(call, items, total=len(found)), "offset": offset}

    @route("/sites/{site}/jobs", "POST")
    def submit_job(self, call: Call, site: str) -> Response:
        user = call.who
        self._site(site)
        asked = self._submission(site, user, _object(call.body))
        try:
            job = self._emulator.jobs.submit(asked)
        except ValueError as error:
            raise Failure(400, f"{_INVALID_JOB}: {error}") from None
        except jobs.Refused as refusal:
            raise _oar_refuses(call, f"/sites/{site}", "jobs.json", 400, str(refusal)) from None
        location = f"{call.prefix}/sites/{site}/jobs/{job.uid}"
        return _json(self._job_document(call, job, True), 201, {"Location": location})

    def _submission(self, site: str, user: str, body: Document) -> jobs.Submission:
        reservation = body.get("reservation")
        if reservation is not None and not isinstance(reservation, str):
            raise Failure(400, f"{_INVALID_JOB}: `reservation` should be a String.")
        if not body.get("command") and reservation is None:
            raise Failure(400, f"{_INVALID_JOB}: you must give a :command to execute on launch")
        types = body.get("types") or []
        resources = body.get("resources") or "/nodes=1"
        if body.get("walltime") and "walltime=" not in resources:
            resources += f",walltime={body['walltime']}"
        return jobs.Submission(
            site=site,
            user=user,
            resources=resources,
            command=body.get("command") or "",
            name=body.get("name"),
            types=tuple([types] if isinstance(types, str) else types),
            queue=body.get("queue") or "default",
            project=body.get("project"),
            reservation=reservation,
            properties=body.get("properties") or "",
            directory=body.get("directory"),
        )

    @route("/sites/{site}/jobs/{uid}")
    def job(self, call: Call, site: str, uid: str) -> Document:
        return self._job_document(call, self._job(site, uid), True)

    @route("/sites/{site}/jobs/{uid}", "DELETE")
    def delete_job(self, call: Call, site: str, uid: str) -> Response:
        user = call.who
        job = self._job(site, uid)
        if job.asked.user != user:
            raise Failure(403, "You are not authorized to access this resource")
        try:
            self._emulator.jobs.delete(job)
        except jobs.Refused as refusal:
            raise _oar_refuses(
                call, f"/sites/{site}", f"jobs/{uid}.json", 400, str(refusal)
            ) from None
        told = f"Deleting the job = {uid} ...REGISTERED."
        location = f"{call.prefix}/sites/{site}/jobs/{uid}"
        return Response(202, headers={"Location": location, "X-Oar-Info": told})

    @route("/sites/{site}/jobs/{uid}/walltime")
    def walltime(self, call: Call, site: str, uid: str) -> Document:
        call.who  # noqa: B018 - it refuses somebody unknown
        job = self._job(site, uid)
        granted = job.walltime_s - job.request.walltime_s
        return {
            "uid": job.uid,
            "walltime": format_walltime(job.walltime_s),
            "possible": "UNLIMITED",
            "pending": job.walltime_pending,
            "granted": format_walltime(max(granted, 0)),
            "force": "FORBIDDEN",
            "delay_next_jobs": "FORBIDDEN",
            "whole": "FORBIDDEN",
            "timeout": 0,
            "links": call.links(call.path),
        }

    @route("/sites/{site}/jobs/{uid}/walltime", "POST")
    def change_walltime(self, call: Call, site: str, uid: str) -> Response:
        user = call.who
        job = self._job(site, uid)
        wanted = _object(call.body).get("walltime")
        if not isinstance(wanted, str) or not wanted:
            raise Failure(
                400,
                "The job walltime change you are trying to submit is not valid: "
                "you must give a new walltime",
            )
        if job.asked.user != user:
            raise Failure(403, f"Job {uid} does not belong to you")
        if job.state != "running":
            raise Failure(403, f"Job {uid} is not running")
        try:
            seconds = parse_walltime(wanted.lstrip("+-"))
        except BadRequest as error:
            raise Failure(400, str(error)) from None
        sign = {"+": 1, "-": -1}.get(wanted[0])
        total = seconds if sign is None else job.walltime_s + sign * seconds
        is_granted = self._emulator.jobs.change_walltime(job, total)
        job.walltime_pending = "0:0:0" if is_granted else f"+{format_walltime(seconds)}"
        # A text would do, but python-grid5000 makes an object of the answer.
        changed = self.walltime(call, site, uid)
        return _json(changed, 202, {"Location": f"{call.prefix}{call.path}"})

    # ---------------------------------------------------------------- deployments

    def _deployment(self, site: str, uid: str) -> deployments.Deployment:
        self._site(site)
        found = self._emulator.deployments.get(site, uid)
        if found is None:
            raise Failure(404, f"Couldn't find Grid5000::Deployment with ID={uid}")
        return found

    def _deployment_document(self, call: Call, one: deployments.Deployment) -> Document:
        document = self._emulator.deployments.document(one, call.prefix)
        site = f"/sites/{one.site}"
        links = [call.link("self", f"{site}/deployments/{one.uid}"), call.link("parent", site)]
        return {**document, "links": links}

    @route("/sites/{site}/deployments")
    def list_deployments(self, call: Call, site: str) -> Document:
        self._site(site)
        found = self._emulator.deployments.of(site)
        if "user" in call.query:
            found = [one for one in found if one.user == call.query["user"]]
        if "status" in call.query:
            found = [one for one in found if one.status == call.query["status"]]
        if call.query.get("reverse") == "true":
            found.reverse()
        offset, limit = call.page(50, 500)
        items = [self._deployment_document(call, one) for one in found[offset : offset + limit]]
        return {**self._collect(call, items, total=len(found)), "offset": offset}

    @route("/sites/{site}/deployments", "POST")
    def deploy(self, call: Call, site: str) -> Response:
        user = call.who
        self._site(site)
        body = _object(call.body)
        nodes, environment = body.get("nodes"), body.get("environment")
        if not isinstance(nodes, list) or not nodes:
            raise Failure(
                400, f"{_INVALID_DEPLOYMENT}: Nodes must be a non-empty list of node FQDN"
            )
        if not isinstance(environment, str):
            raise Failure(400, f"{_INVALID_DEPLOYMENT}: Environment can't be blank")
        vlan = body.get("vlan")
        try:
            made = self._emulator.deployments.start(
                site, user, nodes, environment,
                key=body.get("key") or "",
                version=body.get("version"),
                vlan=None if vlan is None else str(vlan),
            )  # fmt: skip
        except deployments.Refused as refusal:
            status = 400 if refusal.is_bad_request else 500
            raise Failure(status, f"Cannot launch deployment: {refusal}") from None
        location = f"{call.prefix}/sites/{site}/deployments/{made.uid}"
        return _json(self._deployment_document(call, made), 201, {"Location": location})

    @route("/sites/{site}/deployments/{uid}")
    def deployment(self, call: Call, site: str, uid: str) -> Document:
        return self._deployment_document(call, self._deployment(site, uid))

    @route("/sites/{site}/deployments/{uid}", "PUT")
    def touch_deployment(self, call: Call, site: str, uid: str) -> Response:
        self._deployment(site, uid)
        return Response(204, headers={"Location": f"{call.prefix}{call.path}"})

    @route("/sites/{site}/deployments/{uid}", "DELETE")
    def cancel_deployment(self, call: Call, site: str, uid: str) -> Response:
        user = call.who
        found = self._deployment(site, uid)
        if found.user != user:
            raise Failure(403, "You are not authorized to access this resource")
        self._emulator.deployments.cancel(found)
        return Response(202, headers={"Location": f"{call.prefix}{call.path}"})

    # ---------------------------------------------------------------- VLANs

    def _vlan(self, site: str, vlan: str) -> Site:
        found = self._site(site)
        if vlan not in self._emulator.platform.vlans(found):
            raise Failure(404, f"Vlan {vlan} does not exist")
        return found

    def _vlan_document(self, call: Call, site: Site, vlan: str) -> Document:
        path = f"/sites/{site.name}/vlans/{vlan}"
        links = [call.link(rel, f"{path}/{rel}") for rel in ("dhcpd", "nodes")]
        links.append(call.link("users", f"{path}/users", COLLECTION))
        of_type = self._emulator.platform.vlans(site)[vlan]
        return {"uid": vlan, "type": of_type, "links": [*links, *call.links(path)]}

    def _interface_document(self, call: Call, site: str, name: str) -> Document:
        links = call.links(f"/sites/{site}/vlans/nodes/{name}")
        return {"uid": name, "vlan": self._emulator.vlans.of(name), "links": links}

    @route("/sites/{site}/vlans")
    def list_vlans(self, call: Call, site: str) -> Document:
        found = self._site(site)
        known = self._emulator.platform.vlans(found)
        return self._collect(call, [self._vlan_document(call, found, vlan) for vlan in known])

    @route("/sites/{site}/vlans/nodes")
    def interfaces(self, call: Call, site: str) -> Document:
        names = self._emulator.vlans.interfaces(self._site(site))
        return self._collect(call, [self._interface_document(call, site, name) for name in names])

    @route("/sites/{site}/vlans/nodes", "POST")
    def vlans_of_interfaces(self, call: Call, site: str) -> Document:
        call.who  # noqa: B018 - it refuses somebody unknown
        known = self._emulator.vlans.interfaces(self._site(site))
        names = [name for name in _names(call.body) if name in known]
        return self._collect(call, [self._interface_document(call, site, name) for name in names])

    @route("/sites/{site}/vlans/nodes/{name}")
    def interface(self, call: Call, site: str, name: str) -> Document:
        if name not in self._emulator.vlans.interfaces(self._site(site)):
            raise Failure(404, f"Unknown node '{name}'.")
        return self._interface_document(call, site, name)

    @route("/sites/{site}/vlans/users")
    def vlan_users(self, call: Call, site: str) -> Document:
        found = self._site(site)
        vlans_of_site = self._emulator.platform.vlans(found)
        users = {user for vlan in vlans_of_site for user in self._emulator.vlans.users(found, vlan)}
        items = [{"uid": u, "links": call.links(f"{call.path}/{u}")} for u in sorted(users)]
        return self._collect(call, items)

    @route("/sites/{site}/vlans/users/{user}")
    def vlans_of_user(self, call: Call, site: str, user: str) -> Document:
        found = self._site(site)
        known = self._emulator.platform.vlans(found)
        own = [vlan for vlan in known if user in self._emulator.vlans.users(found, vlan)]
        return {"uid": user, "vlans": own, "links": call.links(call.path)}

    @route("/sites/{site}/vlans/{vlan}")
    def vlan(self, call: Call, site: str, vlan: str) -> Document:
        return self._vlan_document(call, self._vlan(site, vlan), vlan)

    @route("/sites/{site}/vlans/{vlan}", "POST")
    def put_in_vlan_as_execo_does(self, call: Call, site: str, vlan: str) -> Document:
        """KaVLAN's own form of the call: the names are under `nodes`, answers are bare."""
        return self._move(
            call, self._vlan(site, vlan), vlan, _names(_object(call.body).get("nodes"))
        )

    @route("/sites/{site}/vlans/{vlan}/nodes")
    def vlan_nodes(self, call: Call, site: str, vlan: str) -> Document:
        names = self._emulator.vlans.inside(self._vlan(site, vlan), vlan)
        return self._collect(call, [self._interface_document(call, site, name) for name in names])

    @route("/sites/{site}/vlans/{vlan}/nodes", "POST")
    def put_in_vlan(self, call: Call, site: str, vlan: str) -> Document:
        found = self._move(call, self._vlan(site, vlan), vlan, _names(call.body))
        told = {
            "ok": ("success", "Successfully added to vlan"),
            "unknown_node": ("failure", "Unknown node"),
            "unchanged": ("unchanged", "Node already in vlan"),
        }
        return {
            name: dict(zip(("status", "message"), told[state], strict=True))
            for name, state in found.items()
        }

    def _move(self, call: Call, site: Site, vlan: str, names: list[str]) -> dict[str, str]:
        try:
            return self._emulator.vlans.put(site, vlan, names, call.who)
        except vlans.Forbidden:
            raise Failure(403, "Not enough privileges on Kavlan resources") from None

    @route("/sites/{site}/vlans/{vlan}/users")
    def users_of_vlan(self, call: Call, site: str, vlan: str) -> Document:
        users = self._emulator.vlans.users(self._vlan(site, vlan), vlan)
        return self._collect(
            call, [{"uid": u, "links": call.links(f"{call.path}/{u}")} for u in users]
        )

    @route("/sites/{site}/vlans/{vlan}/users/{user}")
    def user_of_vlan(self, call: Call, site: str, vlan: str, user: str) -> Document:
        users = self._emulator.vlans.users(self._vlan(site, vlan), vlan)
        status = "authorized" if user in users else "unauthorized"
        return {"uid": user, "status": status, "links": call.links(call.path)}

    # ---------------------------------------------------------------- firewall, storage, stitcher

    @route("/sites/{site}/firewall/{uid}")
    def firewall(self, call: Call, site: str, uid: str) -> list[Document]:
        return self._firewall.get(self._job(site, uid).uid, [])

    @route("/sites/{site}/firewall/{uid}", "POST")
    def open_firewall(self, call: Call, site: str, uid: str) -> Response:
        job = self._own_job(call, site, uid)
        if not isinstance(call.body, list):
            raise Failure(400, "Bad Request")
        self._firewall.setdefault(job.uid, []).extend(call.body)
        return _json(self._firewall[job.uid], 201)

    @route("/sites/{site}/firewall/{uid}", "DELETE")
    def close_firewall(self, call: Call, site: str, uid: str) -> Response:
        self._firewall.pop(self._own_job(call, site, uid).uid, None)
        return Response(204)

    def _own_job(self, call: Call, site: str, uid: str) -> jobs.Job:
        job = self._job(site, uid)
        if job.asked.user != call.who:
            raise Failure(403, "You are not authorized to access this resource")
        return job

    @route("/sites/{site}/storage/{server}/{name}/access")
    def storage(self, call: Call, site: str, server: str, name: str) -> Document:
        self._site(site)
        return self._storage.get((site, server, name), {})

    @route("/sites/{site}/storage/{server}/{name}/access", "POST")
    def open_storage(self, call: Call, site: str, server: str, name: str) -> Response:
        user = call.who
        self._site(site)
        body = _object(call.body)
        termination = body.get("termination", {})
        until = termination.get("until", f"{termination.get('job')}-{termination.get('site')}")
        rules = self._storage.setdefault((site, server, name), {})
        uid = f"G5k-{server}_{user}_{until}_{len(rules) + 1}"
        rules[uid] = {"ipv4": body.get("ipv4", []), "termination": termination}
        return _json({uid: rules[uid]}, 201)

    @route("/stitcher/stitchings")
    def stitchings(self, call: Call) -> Document:
        return self._collect(call, self._stitchings.values())

    @route("/stitcher/stitchings", "POST")
    def stitch(self, call: Call) -> Response:
        call.who  # noqa: B018 - it refuses somebody unknown
        body = _object(call.body)
        vlan = str(body.get("id"))
        if self._emulator.platform.site_of_vlan(vlan) is None:
            raise Failure(400, f"{vlan} is no global VLAN")
        self._stitchings[vlan] = {"id": vlan, "sdx_vlan_id": str(body.get("sdx_vlan_id"))}
        return _json(self._stitchings[vlan], 201)

    @route("/stitcher/stitchings/{uid}")
    def stitching(self, call: Call, uid: str) -> Document:
        if uid not in self._stitchings:
            raise Failure(404, "Not Found")
        return self._stitchings[uid]

    @route("/stitcher/stitchings/{uid}", "DELETE")
    def unstitch(self, call: Call, uid: str) -> Response:
        call.who  # noqa: B018 - it refuses somebody unknown
        self.stitching(call, uid)
        del self._stitchings[uid]
        return Response(204)


_INVALID_JOB = "The job you are trying to submit is not valid"
_INVALID_DEPLOYMENT = "The deployment you are trying to submit is not valid"


def _json(document: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(status, json.dumps(document).encode(), JSON, headers or {})


def _object(body: Any) -> Document:
    if not isinstance(body, dict):
        raise Failure(400, "Bad Request")
    return body


def _names(body: Any) -> list[str]:
    if not isinstance(body, list) or not body:
        raise Failure(422, "Missing node list")
    return [str(name) for name in body]


def _queues(query: Query) -> set[str]:
    asked = query.get("queues", "admin,default")
    return set(("admin,default,production" if asked == "all" else asked).split(","))


def _oar_refuses(call: Call, site: str, what: str, status: int, text: str) -> Failure:
    """OAR's answer comes wrapped in the text of the API that asked it."""
    uri = f"https://api.grid5000.fr{call.prefix}{site}/internal/oarapi/{what}"
    told = json.dumps({"code": status, "message": text, "title": "ERROR: OAR server"}, indent=3)
    return Failure(status, f"Request to {uri} failed with status {status}: {told}")


def _environment_uid(name: str) -> str:
    return f"{name}_2024010100"


def _environment(call: Call, site: str, name: str) -> Document:
    uid = _environment_uid(name)
    return {
        "uid": uid,
        "name": name,
        "version": 2024010100,
        "description": f"{name} for x64",
        "author": "support-staff@lists.grid5000.fr",
        "visibility": "public",
        "arch": "x86_64",
        "os": "linux",
        "user": "deploy",
        "links": call.links(f"/sites/{site}/environments/{uid}"),
    }
