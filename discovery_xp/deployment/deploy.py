"""Hosts and playbooks to a `Deployment`: a cloud that boots VMs at every site.

`install` runs the playbooks on hosts that answer over ssh, `verify` boots a VM at each
site, and `remove` takes the cloud off its hosts.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from discovery_xp import software
from discovery_xp.boundary import answers, writers
from discovery_xp.deployment import clients, description, identities, schemas
from discovery_xp.deployment.description import Deployment, Endpoint
from discovery_xp.deployment.play import PlayRun, log_file, run_playbook
from discovery_xp.deployment.variables import CloudVariables, PlayVariables, play_variables
from discovery_xp.errors import Failed, Refused
from discovery_xp.files import read_json
from discovery_xp.planning import databases
from discovery_xp.planning.plan import Plan
from discovery_xp.testbeds import passwords
from discovery_xp.testbeds.hosts import Hosts, Progress
from discovery_xp.testbeds.testbed import Testbed, write_atomically

# The module that boots a VM at each site.
SMOKE_MODULE = "smoke_boot"


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


def databases_file(testbed: Testbed) -> Path:
    """Return where it is noted what holds the databases of the cloud that is there."""
    return testbed.folder / "databases.json"


def loaded_file(testbed: Testbed) -> Path:
    """Return the file that is there while something of a load is left in the cloud."""
    return testbed.folder / "loaded"


def variables_file(testbed: Testbed) -> Path:
    """Return where it is kept what the playbooks were told last, without secrets."""
    return testbed.folder / "variables.json"


# ---------------------------------------------------------------- installing


@dataclass(frozen=True)
class Installed:
    """A cloud that is on its hosts; those in `probed` got all their probes with it.

    `is_disturbed` where services were started or changed.
    """

    deployment: Deployment
    probed: frozenset[str]
    is_disturbed: bool


def install(
    hosts: Hosts, testbed: Testbed, progress: Progress, probes: Mapping[str, Any] | None = None
) -> Installed:
    """Make the plan's cloud on the hosts, or repair it; raises Failed with the host's words.

    `probes` is what the playbook is told besides, where services start with probes in them.

    1. refuse, before a host is asked, settings that can't be written;
    2. take a cloud off the hosts whose databases are elsewhere;
    3. fetch or build the software that hosts lack;
    4. run the playbook;
    5. keep its description, the clients' logins and the computes' identities, and the schemas
       that migrations made for later clouds.
    """
    require_writable(hosts.plan)
    identities.require_readable(testbed)
    is_new = not log_file(testbed.name).exists()  # no playbook has run on these hosts yet
    kept_schemas = schemas.kept_for(hosts, is_new)
    remove_other_databases(hosts, testbed, progress)
    variables = play_variables(hosts, testbed)
    cloud = dataclasses.replace(variables.cloud, schemas=kept_schemas)
    variables = dataclasses.replace(variables, cloud=cloud)
    ensure_software(variables.cloud, progress)
    run = run_playbook(hosts, "deploy", {**variables.to_ansible(), **(probes or {})}, progress)
    deployment = describe(hosts, variables.cloud, run)
    write_records(hosts, testbed, deployment, variables)
    if kept_schemas.keep:
        for result in run.results("schemas").values():
            schemas.keep(result.get("dumps"))
    components = run.of("component")
    return Installed(
        deployment,
        probed=frozenset(each.host for each in components if each.result.get("probed") is True),
        is_disturbed=any(each.status == "changed" for each in components),
    )


def require_writable(plan: Plan) -> None:
    """Raise Refused for a setting that the file of its service can't hold."""
    for service, settings in plan.require_cloud().options.config.items():
        for section, options in settings.items():
            for option, value in options.items():
                problem = writers.ini_problem(section, option, value)
                if problem is not None:
                    raise Refused(
                        f"openstack.config.{service}: {problem}", "correct it in the topology"
                    )


def remove_other_databases(hosts: Hosts, testbed: Testbed, progress: Progress) -> None:
    """Take a cloud off its hosts whose databases are elsewhere than the plan's.

    What is in a database doesn't move to another store, and services that run remember it:
    the new cloud starts from nothing.  Noted before anything is installed, so that a run that
    is killed meanwhile is found, too.
    """
    layout = hosts.plan.require_cloud()
    redis = layout.stores_of(databases.REDIS)
    held = ((each.name, layout.store_of(each)) for each in layout.databases)
    servers = {name: store.nodes[0].host for name, store in held if store in redis}
    planned = {
        "holders": {each.name: each.backend for each in layout.databases},
        "nodes": [[node.host, node.port] for each in redis for node in each.nodes],
        # A Redis that keeps nothing starts with nothing, whatever it is started with.
        "is_kept": not redis or redis[0].persistence != "none",
        # Servers may be where the nodes of a cluster would be, and share databases out otherwise.
        **({"servers": servers} if len(redis) > 1 else {}),
        # Galera's nodes may come and go: each has everything.
        **({databases.GALERA: True} if layout.galera else {}),
        # Nova remembers where the database and the message bus of each cell are.
        **({"cells": {cell.name: cell.host for cell in layout.cells}} if layout.cells else {}),
    }
    file = databases_file(testbed)
    if file.exists():
        try:
            noted = read_json(file)
        except ValueError:
            noted = None
        if noted == planned:
            return
        progress("other databases: the cloud goes first", 0, 0)
        remove(hosts, testbed, progress)
    write_atomically(file, json.dumps(planned, indent=1) + "\n")


def ensure_software(cloud: CloudVariables, progress: Progress) -> None:
    """Build ROME's wheel and fetch the packages that hosts of the cloud lack."""
    if cloud.rome is not None:
        software.ROME.ensure()
    if cloud.is_prepared:
        return
    for environment in software.ENVIRONMENTS:
        if not environment.wheels_folder.is_dir():
            title = environment.title
            progress(f"fetching {title}'s packages (once for each lock file)", 0, 0)
        environment.ensure_wheels()


def describe(hosts: Hosts, cloud: CloudVariables, run: PlayRun) -> Deployment:
    """Describe the cloud that a run of the playbook made or repaired."""
    layout = hosts.plan.require_cloud()
    addresses = {name: host.address for name, host in cloud.hosts.items()}
    locked = {**software.OPENSTACK.locked_versions,
              "rally": software.RALLY.locked_versions["rally"]}  # fmt: skip
    packages: tuple[str, ...] = (
        "nova", "keystone", "glance", "neutron", "openstack-placement", "sqlalchemy",
        "oslo-db", "oslo-messaging", "gunicorn", "rally",
    )  # fmt: skip
    if cloud.rome is None:
        packages += ("pymysql",)
    else:
        packages += ("sqlalchemy-rome", "apsw", "redis", "hiredis")
        locked[software.ROME.name] = software.ROME.version
    return Deployment(
        auth_url=layout.endpoint("identity").url(addresses),
        endpoints=tuple(
            Endpoint(region.name, region.site, region.controller,
                     layout.endpoint("compute", region.name).url(addresses))
            for region in layout.regions
        ),
        user=cloud.user,
        flavor=cloud.flavor,
        image=cloud.image,
        options=cloud.options,
        versions={name: locked[name] for name in packages if name in locked},
        stages_s={},
        changes=len(run.changed),
    )  # fmt: skip


def write_records(
    hosts: Hosts, testbed: Testbed, deployment: Deployment, variables: PlayVariables
) -> None:
    """Write what the testbed's folder holds of a cloud that is there."""
    description.save(testbed, deployment)
    text = json.dumps(variables.cloud.to_json(), indent=1)
    write_atomically(variables_file(testbed), text + "\n")
    regions = [region.name for region in variables.cloud.regions]
    clients.write(testbed, deployment.auth_url, regions, variables.secrets.passwords)
    identities.collect(hosts, testbed)


# ---------------------------------------------------------------- verifying


def verify(hosts: Hosts, testbed: Testbed, progress: Progress) -> list[Boot]:
    """Boot a VM at each site through the API that serves it; the caller judges."""
    layout = hosts.plan.require_cloud()
    run = run_playbook(hosts, "smoke", play_variables(hosts, testbed).to_ansible(), progress)
    try:
        reports = answers.listed(run.results(SMOKE_MODULE)[layout.master].get("boots"))
        return read_boots(reports, layout.served_by)
    except (KeyError, answers.Unfit) as error:
        raise Failed(
            f"{layout.master} doesn't say what came of the VMs: {error}",
            f"see {log_file(testbed.name)}",
        ) from None


def note_load(testbed: Testbed) -> None:
    """Note that a load begins: what it leaves in the cloud is there until `reset`."""
    loaded_file(testbed).touch()


def reset(hosts: Hosts, testbed: Testbed, progress: Progress) -> None:
    """Bring a cloud that has carried a load to where its deployment left it; else do nothing.

    VMs of loads go, so do the rows that Nova keeps of them, and the tokens in the cache.  What
    services have in memory stays.  Raises Failed with the master's words.
    """
    if not loaded_file(testbed).exists():
        return
    run_playbook(hosts, "reset", play_variables(hosts, testbed).to_ansible(), progress)
    loaded_file(testbed).unlink()


def read_boots(reports: Sequence[object], regions: Mapping[str, str]) -> list[Boot]:
    """Return what the master reports of each site's VM; raises Unfit unless it is that.

    `regions` is each site's whose API was asked.
    """
    boots = {}
    for entry in reports:
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


# ---------------------------------------------------------------- the end


def remove(hosts: Hosts, testbed: Testbed, progress: Progress) -> None:
    """Take the cloud off its hosts, its data and passwords too; Debian's packages stay."""
    run_playbook(hosts, "destroy", play_variables(hosts, testbed).to_ansible(), progress)
    for file in (
        description.deployment_file(testbed), variables_file(testbed), databases_file(testbed),
        clients.clouds_file(testbed), clients.openrc_file(testbed),
        identities.identities_file(testbed), loaded_file(testbed),
    ):  # fmt: skip
        file.unlink(missing_ok=True)
    passwords.forget(testbed)
