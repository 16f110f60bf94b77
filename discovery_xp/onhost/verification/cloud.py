"""What tests need in the cloud, made before them; what they leave there, removed after them.

Run with OpenStack's SDK, as `python -m discovery_xp.onhost.verification.cloud prepare|clean`, in
the folder that `run` works in, with `login.json` besides.  `prepare` notes first what is in the
cloud; `clean` removes all that isn't in that note, ours and what tests left, and says how much
that was.
"""

from __future__ import annotations

import configparser
import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..cloud.connection import connect, plainly
from ..process import Failure, replace
from ..wire.verification import VerificationRequest
from .run import CONFIGURATION, crash, read_request, say

BEFORE = "before.json"
_NAME = "discovery-xp-verify"
# The fake driver never reads it, but Glance looks at what is uploaded.
_IMAGE = b"\0" * 512
# Passes over all kinds: what is in use goes with the second one, once its user went.
_PASSES = 3


@dataclass(frozen=True)
class Kind:
    """A kind of resource: how all of a cloud's are listed, and one is deleted."""

    name: str
    listed: Callable[[Any], Iterable[Any]]
    delete: Callable[[Any, Any], object]

    def identities(self, cloud: Any) -> dict[str, Any]:
        """Return those that are there by their identity; none where the API has no such thing."""
        from openstack.exceptions import SDKException

        found: dict[str, Any] = {}
        with contextlib.suppress(SDKException):
            for each in self.listed(cloud):
                found[str(each.id)] = each
        return found


def _deleted(proxy: str, method: str) -> Callable[[Any, Any], object]:
    """Return what deletes a resource by a method of one of the SDK's proxies."""
    return lambda cloud, each: getattr(getattr(cloud, proxy), method)(each, ignore_missing=True)


def _kind(name: str, proxy: str, plural: str, singular: str, **query: Any) -> Kind:
    return Kind(
        name,
        lambda cloud: getattr(getattr(cloud, proxy), plural)(**query),
        _deleted(proxy, f"delete_{singular}"),
    )


def _keypairs(cloud: Any) -> Iterator[Any]:
    """Yield the key pairs of all users."""
    for user in cloud.identity.users():
        for pair in cloud.compute.keypairs(user_id=user.id):
            pair.user_id = user.id
            yield pair


def _every_image(cloud: Any) -> Iterator[Any]:
    """Yield all projects' images; those that are hidden are in a list of their own."""
    for hidden in (False, True):
        yield from cloud.image.images(visibility="all", is_hidden=hidden)


def _delete_image(cloud: Any, image: Any) -> None:
    if image.is_protected:
        cloud.image.update_image(image, is_protected=False)
    cloud.image.delete_image(image, ignore_missing=True)


def _delete_server(cloud: Any, server: Any) -> None:
    cloud.compute.delete_server(server, ignore_missing=True, force=True)
    cloud.compute.wait_for_delete(server, interval=1, wait=60)


def _delete_aggregate(cloud: Any, aggregate: Any) -> None:
    for host in aggregate.hosts or ():
        cloud.compute.remove_host_from_aggregate(aggregate, host)
    cloud.compute.delete_aggregate(aggregate, ignore_missing=True)


def _delete_domain(cloud: Any, domain: Any) -> None:
    cloud.identity.update_domain(domain, is_enabled=False)
    cloud.identity.delete_domain(domain, ignore_missing=True)


# In the order in which they go: what is used by others comes after those.
KINDS: Sequence[Kind] = (
    Kind("servers", lambda cloud: cloud.compute.servers(details=False, all_projects=True),
         _delete_server),
    _kind("server groups", "compute", "server_groups", "server_group", all_projects=True),
    Kind("key pairs", _keypairs, lambda cloud, pair: cloud.compute.delete_keypair(
        pair, user_id=pair.user_id, ignore_missing=True)),
    Kind("aggregates", lambda cloud: cloud.compute.aggregates(), _delete_aggregate),
    _kind("flavors", "compute", "flavors", "flavor", is_public=None, details=False),
    Kind("images", _every_image, _delete_image),
    Kind("metadata namespaces", lambda cloud: cloud.image.metadef_namespaces(),
         _deleted("image", "delete_metadef_namespace")),
    _kind("ports", "network", "ports", "port"),
    _kind("subnets", "network", "subnets", "subnet"),
    _kind("networks", "network", "networks", "network"),
    _kind("subnet pools", "network", "subnet_pools", "subnet_pool"),
    _kind("address scopes", "network", "address_scopes", "address_scope"),
    _kind("security groups", "network", "security_groups", "security_group"),
    _kind("endpoints", "identity", "endpoints", "endpoint"),
    _kind("services", "identity", "services", "service"),
    _kind("regions", "identity", "regions", "region"),
    _kind("credentials", "identity", "credentials", "credential"),
    _kind("policies", "identity", "policies", "policy"),
    _kind("groups", "identity", "groups", "group"),
    _kind("users", "identity", "users", "user"),
    _kind("projects", "identity", "projects", "project"),
    _kind("roles", "identity", "roles", "role"),
    Kind("domains", lambda cloud: cloud.identity.domains(), _delete_domain),
)  # fmt: skip


def snapshot(cloud: Any, kinds: Sequence[Kind] = KINDS) -> dict[str, list[str]]:
    """Return the identities of all that is in the cloud, by kind."""
    return {kind.name: sorted(kind.identities(cloud)) for kind in kinds}


def restore(
    cloud: Any, before: Mapping[str, Sequence[str]], kinds: Sequence[Kind] = KINDS
) -> tuple[dict[str, int], list[str]]:
    """Remove all that wasn't there `before`; returns how much by kind, and what can't be removed.

    Of a kind that the note doesn't know nothing is removed.
    """
    from openstack.exceptions import SDKException

    removed: dict[str, int] = {}
    complaints: list[str] = []
    for _pass in range(_PASSES):
        complaints = []
        for kind in kinds:
            if kind.name not in before:
                continue
            for identity, each in kind.identities(cloud).items():
                if identity in before[kind.name]:
                    continue
                try:
                    kind.delete(cloud, each)
                except SDKException as error:
                    complaints.append(f"{kind.name}: {identity}: {str(error)[:150]}")
                else:
                    removed[kind.name] = removed.get(kind.name, 0) + 1
        if not complaints:
            break
    return removed, complaints


# ---------------------------------------------------------------- before the tests


def prepare(cloud: Any, request: VerificationRequest) -> None:
    """Note what is there, make flavors and images, and write what Neutron offers."""
    replace(BEFORE, json.dumps(snapshot(cloud)))
    for flavor in request.flavors:
        cloud.compute.create_flavor(
            id=flavor.id, name=flavor.id, ram=flavor.ram_mb, disk=flavor.disk_gb,
            vcpus=flavor.vcpus,
        )  # fmt: skip
    for number, identity in enumerate(request.images, start=1):
        cloud.image.create_image(
            f"{_NAME}-{number}", id=identity, data=_IMAGE, disk_format="raw",
            container_format="bare", visibility="public", wait=False,
        )  # fmt: skip
    extensions = sorted(each.alias for each in cloud.network.extensions())
    set_option(CONFIGURATION, "network-feature-enabled", "api_extensions", ",".join(extensions))


def set_option(path: str, section: str, option: str, value: str) -> None:
    """Set an option of an INI file that only its owner can read, and stays so."""
    parser = configparser.RawConfigParser()
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    with open(path, encoding="utf-8") as file:
        parser.read_file(file)
    if not parser.has_section(section):
        parser.add_section(section)
    parser.set(section, option, value)
    descriptor = os.open(f"{path}.new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        parser.write(file)
    os.replace(f"{path}.new", path)


# ---------------------------------------------------------------- after them


def clean(cloud: Any) -> None:
    """Remove all that wasn't there before, and say what tests left."""
    with open(BEFORE, encoding="utf-8") as file:
        before = json.load(file)
    request = read_request()
    removed, complaints = restore(cloud, before)
    for kind, ours in (("flavors", request.flavors), ("images", request.images)):
        if kind in removed:
            removed[kind] -= len(ours)
    left = [f"{count} {kind}" for kind, count in removed.items() if count > 0]
    if left:
        say("note", text=f"tests left {', '.join(left)}, which are removed")
    for words in complaints[:5]:
        say("note", text=f"can't be removed from the cloud: {words}")


def main(step: str) -> int:
    """Do a step; what goes wrong is said in the records."""
    if step == "clean" and not os.path.exists(BEFORE):
        return 0
    with open("login.json", encoding="utf-8") as file:
        login = json.load(file)
    titles = {"prepare": "flavors and images for the tests", "clean": "removing what tests left"}
    say("stage", stage=titles[step], done=0, total=0)
    try:
        with plainly():
            request = read_request()
            cloud = connect(login, request.region)
            if step == "prepare":
                prepare(cloud, request)
            else:
                clean(cloud)
    except Failure as failure:
        if step == "prepare":
            crash(f"the cloud can't be prepared: {failure}")
        say("note", text=f"what tests left can't be removed: {failure}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
