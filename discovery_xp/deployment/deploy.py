"""Hosts and playbooks to a `Deployment`: a cloud that boots VMs at every site.

`install` runs the playbooks on hosts that answer over ssh, `verify` boots a VM at each
site, `backup` fetches what a reader of results may want to see, and `remove` takes the cloud
off its hosts.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from discovery_xp.testbeds import ansible_runs  # noqa: F401 (it comes before EnOSlib)

# isort: split
from discovery_xp import software
from discovery_xp.boundary import answers, archives, writers
from discovery_xp.deployment import schemas
from discovery_xp.deployment.play import PlayRun, log_file, run_playbook
from discovery_xp.errors import Failed, Refused
from discovery_xp.files import read_json
from discovery_xp.inputs.topology import OpenStack
from discovery_xp.planning import cloud, databases, ports
from discovery_xp.planning.plan import Plan, key_value_store
from discovery_xp.testbeds import passwords
from discovery_xp.testbeds.hosts import Hosts, Progress
from discovery_xp.testbeds.remote import run_each
from discovery_xp.testbeds.testbed import Testbed, write_atomically

DEPLOYMENT_FORMAT = 1
USER = "discovery"
FLAVOR = "m1.tiny"
IMAGE = "discovery"
API_THREADS = 16
COMPUTE_API_VERSION = "2.90"
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
# What `backup` makes folders of.
COMPONENTS = frozenset(
    ("mariadb", "rome", "rabbitmq", "memcached", "keystone", "glance", "placement", "neutron",
     "redis", "nova")
)  # fmt: skip


@dataclass(frozen=True)
class Endpoint:
    """Where a region's Nova is asked; `site` and `controller` say whose it is."""

    region: str
    site: str
    controller: str
    url: str


@dataclass(frozen=True)
class Deployment:
    """A cloud that was installed: what a load or a reader needs to know of it, no secrets.

    `versions` is by package; `stages_s` how long each stage took, the hosts' and the links'
    included (empty until all is through), `changes` how many tasks changed something, both
    in the last run.
    """

    auth_url: str
    endpoints: tuple[Endpoint, ...]
    user: str
    flavor: str
    image: str
    options: Mapping[str, Any]
    versions: Mapping[str, str]
    stages_s: Mapping[str, float]
    changes: int
    format: int = DEPLOYMENT_FORMAT

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class Boot:
    """What came of a smoke boot at a site; the duration is None unless it got ACTIVE."""

    site: str
    region: str
    status: str
    host: str
    boot_duration_s: float | None
    message: str

    @property
    def is_active(self) -> bool:
        """True when the VM got ACTIVE."""
        return self.status == "ACTIVE"


def deployment_file(testbed: Testbed) -> Path:
    """Where the last deployment's description is."""
    return testbed.folder / "deployment.json"


def databases_file(testbed: Testbed) -> Path:
    """Where it is noted what holds the databases of the cloud that is there."""
    return testbed.folder / "databases.json"


def identities_file(testbed: Testbed) -> Path:
    """What Nova called each compute, by host: a machine put in its place goes by that."""
    return testbed.folder / "compute_ids.json"


def clouds_file(testbed: Testbed) -> Path:
    """clouds.yaml of the testbed, for OpenStack's clients."""
    return testbed.folder / "clouds.yaml"


def openrc_file(testbed: Testbed) -> Path:
    """The same as variables for a shell."""
    return testbed.folder / "openrc"


def addresses(hosts: Hosts) -> dict[str, str]:
    """Where each host is reached by the others, by name."""
    return {name: str(host.address) for name, host in hosts.by_name().items()}


def variables(hosts: Hosts, testbed: Testbed) -> dict[str, Any]:
    """All that the playbooks are told."""
    plan = hosts.plan
    options = _options(plan)
    secrets = passwords.ensure(testbed)
    address = addresses(hosts)
    master = cloud.master(plan)
    store = key_value_store(plan)
    known = cloud.regions(plan)
    asked = cloud.asked_for(plan)
    region_of = {region.controller: region.name for region in known}
    computes = cloud.computes(plan)
    nova_services: dict[str, list[str]] = {}
    nova_queues: dict[str, str] = {}
    for service in cloud.services(plan):
        if service.queue is not None:
            nova_services.setdefault(service.unit, []).append(service.host)
            nova_queues[service.queue] = f"{service.unit} on {service.host}"
    return {
        "testbed": plan.name,
        "cloud": _described(plan, options, store),
        "passwords": secrets,
        "rabbitmq_password_hash": passwords.rabbitmq_hash(secrets["rabbitmq"], plan.name),
        "environment": software.OPENSTACK.place,
        "lock_digest": software.OPENSTACK.lock_digest,
        "environments": {each.name: _environment(testbed, each) for each in software.ENVIRONMENTS},
        "debian_packages": _debian_packages(plan),
        "database_urls": databases.urls(
            options, store, address, address[master.name], secrets["database"]
        ),
        "cell0_template": databases.cell0_template(store, address),
        "mariadb_databases": databases.held_by(options, databases.MYSQL),
        "redis": _redis(store, address, secrets),
        "rome": _rome() if store else {},
        "prepared": plan.provider == "local",
        "firewall": _firewall(plan, testbed, address),
        "api_threads": API_THREADS,
        "user": USER,
        "flavor": FLAVOR,
        "image": IMAGE,
        "master": {"name": master.name, "address": address[master.name]},
        "hosts": {
            host.name: {
                "address": address[host.name],
                "site": host.site,
                "region": region_of.get(host.name)
                or (asked[host.site] if host.site in asked else known[0]).name,
            }
            for host in plan.hosts
        },
        "regions": [
            {
                "name": region.name,
                "urls": {
                    "identity": _url(address[master.name], 5000),
                    "image": _url(address[master.name], 9292),
                    "placement": _url(address[master.name], 8778),
                    "network": _url(address[master.name], 9696),
                    "compute": _url(address[region.controller], 8774, "/v2.1"),
                },
            }
            for region in known
        ],
        "clouds": _clouds_yaml(
            _url(address[master.name], 5000), [region.name for region in known], secrets
        ),
        "nova_services": nova_services,
        "nova_queues": nova_queues,
        "computes": computes,
        "compute_ids": _identities(testbed),
        "boots": [
            {"site": site, "region": asked[site].name, "computes": computes[site]} for site in asked
        ],
    }


def _described(plan: Plan, options: OpenStack, store: databases.Store | None) -> dict[str, Any]:
    """The topology's choices, as results keep them, and what came of them: of how many
    computes one is drawn; with Redis of 'auto', which database is held by what, and on how
    many nodes.
    """
    told = {
        **dataclasses.asdict(options),
        "config": options.config,
        "drawn_from": cloud.drawn_from(plan),
    }
    if store is None:
        del told["rome"]
        return told
    return {
        **told,
        "rome": {**told["rome"], "store": store.kind},
        "databases": databases.holders(options),
        "nodes": len(store.masters),
        "replicas": options.rome.replicas,
    }


def _redis(
    store: databases.Store | None, address: Mapping[str, str], secrets: Mapping[str, str]
) -> dict[str, Any]:
    """What the role `redis` needs; empty where there is no Redis."""
    if store is None:
        return {}
    nodes = [
        {**dataclasses.asdict(node), "address": address[node.host],
         "bus_port": node.port + databases.BUS_OFFSET}
        for node in store.nodes
    ]  # fmt: skip
    return {
        "kind": store.kind,
        "persistence": store.persistence,
        "user": databases.USER,
        # Redis keeps the passwords of its users as their SHA-256.
        "user_hash": hashlib.sha256(secrets["database"].encode()).hexdigest(),
        "admin_hash": hashlib.sha256(secrets["redis"].encode()).hexdigest(),
        "nodes": nodes,
        "by_host": {
            host: [node for node in nodes if node["host"] == host]
            for host in dict.fromkeys(node.host for node in store.nodes)
        },
    }


def _firewall(plan: Plan, testbed: Testbed, address: Mapping[str, str]) -> dict[str, Any]:
    """Who may reach which ports of hosts that somebody lends; empty where all may.

    Emulated hosts need none: this machine's routing keeps others away.
    """
    if plan.provider == "local" or (testbed.exists() and testbed.load().exposed):
        return {}
    return {"hosts": sorted(address.values()), "ports": list(ports.CLOUD_PORTS)}


def _rome() -> dict[str, str]:
    """The wheel that hosts with clients of a database get; it is built by `install`."""
    return {"digest": software.ROME.digest, "wheel": str(software.ROME.wheel)}


def _debian_packages(plan: Plan) -> dict[str, list[str]]:
    """By host: servers are installed where they run, what all need everywhere."""
    servers = {"mariadb": "mariadb-server", "redis": "redis-server"}
    runs = {(service.host, service.component) for service in cloud.services(plan)}
    known = software.debian_packages()
    shared = [package for package in known if package not in servers.values()]
    master = cloud.master(plan).name
    return {
        host.name: [
            *(shared if host.name == master else software.EVERYWHERE),
            *(name for component, name in servers.items() if (host.name, component) in runs),
        ]
        for host in plan.hosts
    }


def _options(plan: Plan) -> OpenStack:
    if plan.cloud is None:
        raise Refused(f"'{plan.name}' has no cloud", "make one with 'discovery-xp deploy TOPOLOGY'")
    return plan.cloud


def require_writable(plan: Plan) -> None:
    """Raise Refused for a setting that the file of its service can't hold."""
    for service, settings in _options(plan).config.items():
        for section, options in settings.items():
            for option, value in options.items():
                problem = writers.ini_problem(section, option, value)
                if problem is not None:
                    raise Refused(
                        f"openstack.config.{service}: {problem}", "correct it in the topology"
                    )


def _environment(testbed: Testbed, environment: software.Environment) -> dict[str, str]:
    """What hosts get that don't have it; its archive lies in the testbed's folder meanwhile."""
    return {
        "place": environment.place,
        "program": environment.program,
        "lock_digest": environment.lock_digest,
        "wheels": str(environment.wheels_folder),
        "archive": str(testbed.folder / f"{environment.name}.tar"),
    }


def _url(address: str, port: int, path: str = "") -> str:
    return f"http://{address}:{port}{path}"


# ---------------------------------------------------------------- installing


def install(hosts: Hosts, testbed: Testbed, progress: Progress) -> Deployment:
    """Make the plan's cloud on the hosts, or repair it; raises Failed with the host's words.

    Raises Refused, before a host is asked, for settings that can't be written.
    """
    require_writable(hosts.plan)
    if identities_file(testbed).exists():
        _read_identities(testbed)
    known = variables(hosts, testbed)
    is_new = not log_file(testbed.name).exists()  # no playbook has run on these hosts yet
    kept_schemas = schemas.kept_for(hosts.plan.provider, _options(hosts.plan), is_new)
    known = _remove_other_databases(hosts, testbed, known, progress)
    if known["rome"]:
        software.ROME.ensure()
    if not known["prepared"]:
        for environment in software.ENVIRONMENTS:
            if not environment.wheels_folder.is_dir():
                title = environment.title
                progress(f"fetching {title}'s packages (once for each lock file)", 0, 0)
            environment.ensure_wheels()
    known["schemas"] = dataclasses.asdict(kept_schemas)
    run = run_playbook(hosts, "deploy", known, progress)
    if kept_schemas.keep:
        schemas.keep(run.result("schemas of the databases").get("dumps"))
    deployment = _describe(hosts, known, run)
    save(testbed, deployment)
    regions = [region["name"] for region in known["regions"]]
    write_atomically(clouds_file(testbed), known["clouds"], mode=0o600)
    write_atomically(
        openrc_file(testbed),
        _openrc(deployment.auth_url, regions, known["passwords"]),
        mode=0o600,
    )
    _keep_identities(hosts, testbed)
    return deployment


def _identities(testbed: Testbed) -> dict[str, str]:
    """Return what was kept; nothing where that can't be read: the cloud's end doesn't need it."""
    try:
        return _read_identities(testbed)
    except (FileNotFoundError, Refused):
        return {}


def _read_identities(testbed: Testbed) -> dict[str, str]:
    """Return what was kept; anything but a UUID, which a host may have made, is left out."""
    file = identities_file(testbed)
    try:
        kept = answers.mapping(read_json(file))
    except ValueError as error:
        raise Refused(f"{file} is damaged: {error}", "remove it, and deploy again") from None
    return {host: identity for host, identity in kept.items() if _is_uuid(identity)}


def _is_uuid(value: object) -> bool:
    return isinstance(value, str) and _UUID.fullmatch(value) is not None


def _keep_identities(hosts: Hosts, testbed: Testbed) -> None:
    """Of hosts that somebody lends: they may be replaced, and Nova wants to know them again."""
    plan, known = hosts.plan, _identities(testbed)
    names = [host.name for host in plan.hosts if "compute" in host.roles]
    if plan.platform is None or known.keys() >= set(names):
        return
    told = run_each(hosts, dict.fromkeys(names, "cat /var/lib/nova/compute_id"))
    found = {name: output.stdout.strip() for name, output in told.items()}
    known |= {name: identity for name, identity in found.items() if _is_uuid(identity)}
    write_atomically(identities_file(testbed), json.dumps(known, indent=1) + "\n")


def _remove_other_databases(
    hosts: Hosts, testbed: Testbed, known: dict[str, Any], progress: Progress
) -> dict[str, Any]:
    """Take a cloud off its hosts whose databases are elsewhere; returns the new one's variables.

    What is in a database doesn't move to another store, and services that run remember it:
    the new cloud starts from nothing.  Noted before anything is installed, so that a run that
    is killed meanwhile is found, too.
    """
    options = _options(hosts.plan)
    store = key_value_store(hosts.plan)
    wanted = {
        "holders": databases.holders(options),
        "nodes": [[node.host, node.port] for node in store.nodes] if store else [],
        # A Redis that keeps nothing starts with nothing, whatever it is started with.
        "is_kept": store is None or store.persistence != "none",
    }
    file = databases_file(testbed)
    if file.exists():
        try:
            noted = read_json(file)
        except ValueError:
            noted = None
        if noted == wanted:
            return known
        progress("other databases: the cloud goes first", 0, 0)
        remove(hosts, testbed, progress)
        known = variables(hosts, testbed)
    write_atomically(file, json.dumps(wanted, indent=1) + "\n")
    return known


def _describe(hosts: Hosts, known: Mapping[str, Any], run: PlayRun) -> Deployment:
    address = addresses(hosts)
    locked = {**software.OPENSTACK.locked_versions,
              "rally": software.RALLY.locked_versions["rally"]}  # fmt: skip
    named: tuple[str, ...] = (
        "nova", "keystone", "glance", "neutron", "openstack-placement", "sqlalchemy",
        "pymysql", "oslo-db", "oslo-messaging", "gunicorn", "rally",
    )  # fmt: skip
    if known["rome"]:
        named += ("sqlalchemy-rome", "apsw", "redis", "hiredis")
        locked[software.ROME.name] = software.ROME.version
    return Deployment(
        auth_url=_url(known["master"]["address"], 5000),
        endpoints=tuple(
            Endpoint(region.name, region.site, region.controller,
                     _url(address[region.controller], 8774, "/v2.1"))
            for region in cloud.regions(hosts.plan)
        ),
        user=USER,
        flavor=FLAVOR,
        image=IMAGE,
        options=known["cloud"],
        versions={name: locked[name] for name in named if name in locked},
        stages_s={},
        changes=len(run.changed),
    )  # fmt: skip


def save(testbed: Testbed, deployment: Deployment) -> None:
    """Write the description beside the testbed's state."""
    write_atomically(deployment_file(testbed), json.dumps(deployment.to_json(), indent=1) + "\n")


def load(testbed: Testbed) -> Deployment:
    """The last deployment of a testbed; raises Refused when there is none."""
    file = deployment_file(testbed)
    try:
        data = read_json(file)
        if data["format"] != DEPLOYMENT_FORMAT:
            raise Refused(
                f"{file}: a deployment of format {data['format']}, but this version reads "
                f"{DEPLOYMENT_FORMAT}",
                "use the version that wrote it, or deploy again",
            )
        endpoints = tuple(Endpoint(**endpoint) for endpoint in data.pop("endpoints"))
        return Deployment(endpoints=endpoints, **data)
    except FileNotFoundError:
        raise Refused(
            f"'{testbed.name}' has no cloud", "make one with 'discovery-xp deploy TOPOLOGY'"
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Refused(
            f"{file}: the description of the cloud is damaged ({type(error).__name__})",
            "'deploy' again writes it anew",
        ) from None


def _clouds_yaml(auth_url: str, regions: Sequence[str], secrets: Mapping[str, str]) -> str:
    def entry(user: str, project: str, password: str) -> dict[str, Any]:
        return {
            "auth": {
                "auth_url": auth_url,
                "username": user,
                "password": password,
                "project_name": project,
                "user_domain_name": "Default",
                "project_domain_name": "Default",
            },
            "identity_api_version": "3",
            # Without it the client speaks the API of 2013, which can't go without a NIC.
            "compute_api_version": COMPUTE_API_VERSION,
            "regions": list(regions),  # the first is asked unless another is named
        }

    clouds = {
        "admin": entry("admin", "admin", secrets["admin"]),
        USER: entry(USER, USER, secrets["user"]),
    }
    return yaml.safe_dump({"clouds": clouds}, sort_keys=False)


def _openrc(auth_url: str, regions: Sequence[str], secrets: Mapping[str, str]) -> str:
    shell = {
        "OS_AUTH_URL": auth_url,
        "OS_USERNAME": "admin",
        "OS_PASSWORD": secrets["admin"],
        "OS_PROJECT_NAME": "admin",
        "OS_USER_DOMAIN_NAME": "Default",
        "OS_PROJECT_DOMAIN_NAME": "Default",
        "OS_IDENTITY_API_VERSION": "3",
        "OS_COMPUTE_API_VERSION": COMPUTE_API_VERSION,
        "OS_REGION_NAME": regions[0],
    }
    return writers.shell_exports(shell)


# ---------------------------------------------------------------- verifying


def verify(hosts: Hosts, testbed: Testbed, progress: Progress) -> list[Boot]:
    """Boot a VM at each site through the API that serves it; the caller judges."""
    run = run_playbook(hosts, "smoke", variables(hosts, testbed), progress)
    try:
        said = answers.listed(run.result("a VM at each site").get("boots"))
        return _boots(
            said, {site: region.name for site, region in cloud.asked_for(hosts.plan).items()}
        )
    except (KeyError, answers.Unfit) as error:
        raise Failed(
            f"{cloud.master(hosts.plan).name} doesn't say what came of the VMs: {error}",
            f"see {log_file(testbed.name)}",
        ) from None


def _boots(said: Sequence[object], regions: Mapping[str, str]) -> list[Boot]:
    """What the master said of each site's VM; raises Unfit unless it is that.

    `regions` is each asked site's.
    """
    boots = {}
    for entry in said:
        values = answers.mapping(entry)
        site = values.get("site")
        if not isinstance(site, str) or site not in regions:
            raise answers.Unfit(f"{answers.shown(site)} is no site that was asked")
        duration = values.get("boot_duration_s")
        boots[site] = Boot(
            site=site,
            region=regions[site],
            status=answers.text(values.get("status"), 100),
            host=answers.text(values.get("host"), 300),
            boot_duration_s=None if duration is None else answers.number(duration),
            message=answers.text(values.get("message")),
        )
    missing = [site for site in regions if site not in boots]
    if missing:
        raise answers.Unfit(f"nothing of {missing[0]}")
    return [boots[site] for site in regions]


def require_active(boots: list[Boot]) -> None:
    """Raise Failed, naming the sites, unless a VM got ACTIVE at each."""
    failed = [boot for boot in boots if not boot.is_active]
    if failed:
        words = "; ".join(
            f"{boot.site}: {boot.status}{f' ({boot.message})' if boot.message else ''}"
            for boot in failed[:4]
        )
        raise Failed(
            f"no VM got ACTIVE at {len(failed)} of {len(boots)} sites: {words}",
            "see 'discovery-xp status'; 'deploy' again repairs what is down",
        )


# ---------------------------------------------------------------- records, and the end


def backup(hosts: Hosts, testbed: Testbed, target: Path, progress: Progress) -> int:
    """Write every component's records to TARGET/HOST/COMPONENT; returns the number of files.

    Configurations, journals, database dumps and versions; secrets are replaced by their
    names.  Raises Refused when `target` exists, Failed when a host can't be asked, or when
    what it sent is no archive of a component's files: those of the others are written then.
    """
    known = variables(hosts, testbed)
    names = set(hosts.by_name())
    try:
        target.mkdir(archives.FOLDER_MODE, parents=True)
    except FileExistsError:
        raise Refused(f"{target} exists", "name a folder that doesn't") from None
    except OSError as error:
        raise Refused(
            f"{answers.shown(str(target))} can't be made: {error.strerror}", "name another folder"
        ) from None
    try:
        run = run_playbook(hosts, "backup", known, progress, is_partial=True)
    except BaseException:
        target.rmdir()
        raise
    count, problems = 0, [] if run.failure is None else [run.failure.message]
    for outcome in run.outcomes:
        if "archive" not in outcome.result:
            continue
        # 'keystone : keystone's records'
        component = outcome.task.split(" ")[0]
        if outcome.host not in names or component not in COMPONENTS:
            continue
        (target / outcome.host).mkdir(archives.FOLDER_MODE, exist_ok=True)
        try:
            data = archives.decode(outcome.result["archive"])
            count += archives.unpack(data, target / outcome.host / component)
        except (archives.Hostile, FileExistsError) as error:
            problems.append(f"{outcome.host}'s records of {component} can't be used: {error}")
    for file in (deployment_file(testbed), testbed.state_file, log_file(testbed.name),
                 *(each.lock_file for each in software.ENVIRONMENTS)):  # fmt: skip
        shutil.copy(file, target / file.name)
        count += 1
    if problems:
        raise Failed("; ".join(problems[:4]), f"the others' records are in {target}")
    return count


def remove(hosts: Hosts, testbed: Testbed, progress: Progress) -> None:
    """Take the cloud off its hosts, its data and passwords too; Debian's packages stay."""
    run_playbook(hosts, "destroy", variables(hosts, testbed), progress)
    for file in (deployment_file(testbed), databases_file(testbed), clouds_file(testbed),
                 identities_file(testbed),
                 openrc_file(testbed)):  # fmt: skip
        file.unlink(missing_ok=True)
    passwords.forget(testbed)
