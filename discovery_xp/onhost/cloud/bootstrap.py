"""What a new cloud's users need: services, endpoints, users, an image.

Every call asks first, so running it again only adds what is missing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .. import catalogue
from ..process import changed
from .connection import connect, plainly, wait_for

NETWORK_CIDR = "10.192.0.0/14"


class Bootstrap:
    """Adds to a cloud what its users need; `changes` says what was missing."""

    def __init__(self, args: Mapping[str, Any]) -> None:
        self.args = args
        self.changes: list[str] = []
        self.cloud = connect(args, self.args["regions"][0]["name"])

    def run(self) -> None:
        """Ensure endpoints, users, an image and a network, in this order."""
        identity = self.cloud.identity
        wait_for(
            lambda: list(identity.regions()) or None, 60,
            lambda: f"Keystone doesn't answer at {self.args['auth_url']}",
        )  # fmt: skip
        self.ensure_endpoints()
        self.ensure_users()
        # Another login: the catalogue of the first one knows nothing of what was added.
        self.cloud = connect(self.args, self.args["regions"][0]["name"])
        self.ensure_image()
        self.ensure_network()

    def ensure_endpoints(self) -> None:
        """List each service's public endpoints in Keystone's catalogue."""
        identity = self.cloud.identity
        regions = {region.id for region in identity.regions()}
        services = {service.type: service for service in identity.services()}
        existing = {(endpoint.region_id, endpoint.service_id, endpoint.interface): endpoint
                 for endpoint in identity.endpoints()}  # fmt: skip
        for kind, api in catalogue.APIS.items():
            if kind not in services:
                services[kind] = identity.create_service(type=kind, name=api.component)
                self.changes.append(f"service {api.component}")
        for region in self.args["regions"]:
            if region["name"] not in regions:
                identity.create_region(id=region["name"])
                self.changes.append(f"region {region['name']}")
            for kind, url in region["urls"].items():
                # Public ones only: every token carries them all.
                old = existing.get((region["name"], services[kind].id, "public"))
                if old is None:
                    identity.create_endpoint(
                        service_id=services[kind].id, interface="public", url=url,
                        region_id=region["name"],
                    )  # fmt: skip
                elif old.url != url:
                    identity.update_endpoint(old, url=url)
                else:
                    continue
                self.changes.append(f"endpoint of {kind} in {region['name']}")

    def ensure_users(self) -> None:
        """Create the services' users and the user of experiments, with their roles."""
        identity = self.cloud.identity
        users = {user.name: user for user in identity.users(domain_id="default")}
        projects = {project.name: project for project in identity.projects(domain_id="default")}
        roles = {role.name: role for role in identity.roles()}
        for role in ("admin", "member", "reader", "service"):
            if role not in roles:
                roles[role] = identity.create_role(name=role)
                self.changes.append(f"role {role}")
        own = self.args["user"]
        accounts: list[tuple[str, str, tuple[str, ...], str]] = [
            (name, "service", ("admin", "service"), self.args["service_password"])
            for name in self.args["service_users"]
        ]
        accounts.append((own, own, ("member",), self.args["user_password"]))
        for name, project, granted, password in accounts:
            if project not in projects:
                projects[project] = identity.create_project(name=project, domain_id="default")
                self.changes.append(f"project {project}")
            if name not in users:
                users[name] = identity.create_user(
                    name=name, domain_id="default", password=password,
                    default_project_id=projects[project].id,
                )  # fmt: skip
                self.changes.append(f"user {name}")
            for role in granted:
                if not identity.validate_user_has_project_role(
                    projects[project], users[name], roles[role]
                ):
                    identity.assign_project_role_to_user(
                        projects[project], users[name], roles[role]
                    )
                    self.changes.append(f"role {role} of {name}")

    def ensure_image(self) -> None:
        """Create the image that VMs boot; one that has no data is made anew."""
        name = self.args["image"]

        def ensure() -> bool:
            glance = self.cloud.image
            images = list(glance.images(name=name))
            for image in images:  # a killed run may have left one without data
                if image.status != "active":
                    glance.delete_image(image)
            if not any(image.status == "active" for image in images):
                # VMs of the fake driver never read it.
                glance.create_image(
                    name, data=b"\0" * 512, disk_format="raw", container_format="bare",
                    visibility="public", min_disk=0, wait=False,
                )  # fmt: skip
                self.changes.append(f"image {name}")
            return True

        wait_for(ensure, 60, lambda: "Glance doesn't answer")

    def ensure_network(self) -> None:
        """Create the network of VMs that have a port; without ports, ask Neutron once."""

        def ensure() -> bool:
            neutron = self.cloud.network
            # Neutron's first requests, made side by side, would find empty lists: this is
            # one on its own.
            network = neutron.find_network(catalogue.NETWORK)
            if not self.args["nics"]:
                return True
            if network is None:
                network = neutron.create_network(name=catalogue.NETWORK, shared=True)
                self.changes.append(f"network {catalogue.NETWORK}")
            if not network.subnet_ids:
                neutron.create_subnet(
                    network_id=network.id, ip_version=4, cidr=NETWORK_CIDR,
                    name=catalogue.NETWORK, enable_dhcp=False, gateway_ip=None,
                )  # fmt: skip
                self.changes.append(f"subnet {NETWORK_CIDR}")
            return True

        wait_for(ensure, 60, lambda: "Neutron doesn't answer")


def fill(args: Mapping[str, Any]) -> dict[str, Any]:
    """Add what is missing; `args` are the options of Ansible's module `cloud_bootstrap`."""
    with plainly():
        bootstrap = Bootstrap(args)
        bootstrap.run()
    return changed(bootstrap.changes)
