"""What the platform says of itself: the documents of Grid'5000's reference API.

Collections are written without links and totals: the router adds these.
"""

from __future__ import annotations

import hashlib
from typing import Any

from .machines import Machines
from .platform import Cluster, Node, Platform, Site, gateway

Document = dict[str, Any]

DATE = "Mon, 01 Jan 2024 00:00:00 GMT"


def version(platform: Platform) -> str:
    """Names a description: the same platform has the same one."""
    described = repr(
        [(site.name, sorted(site.clusters.items())) for site in platform.sites.values()]
    )
    return hashlib.sha1(described.encode()).hexdigest()


def root(platform: Platform) -> Document:
    return {"type": "grid", "uid": "grid5000", "version": version(platform)}


def commit(platform: Platform) -> Document:
    return {
        "uid": version(platform),
        "date": DATE,
        "message": "Describe the platform",
        "author": "Grid'5000",
        "type": "version",
    }


def site(one: Site) -> Document:
    kavlans = {
        vlan: {"network": str(network), "gateway": str(gateway(network))}
        for vlan, network in one.vlan_networks().items()
    }
    return {
        "type": "site",
        "uid": one.name,
        "name": one.name.capitalize(),
        "description": f"Grid5000 {one.name.capitalize()} site",
        "location": f"{one.name.capitalize()}, France",
        "production": True,
        "frontend_ip": str(one.production[10]),
        "kavlans": kavlans,
        "kavlan_ip_range": f"10.{4 * one.index}.0.0/14",
        "g5ksubnet": {"network": str(one.subnets), "gateway": str(gateway(one.subnets))},
        "virt_ip_range": str(one.subnets),
        "ipv6": {"prefix": "2001:660:4406", "site_index": one.index},
    }


def cluster(one: Cluster) -> Document:
    return {
        "type": "cluster",
        "uid": one.name,
        "model": "Emulated",
        "created_at": DATE,
        "exotic": one.spec.exotic,
        "kavlan": True,
        "queues": list(one.spec.queues),
        "nodes_count": len(one.nodes),
        "metrics": [
            {
                "name": "wattmetre_power_watt",
                "description": "Power consumption of a node, in watt",
                "period": 1000,
                "source": {"protocol": "wattmetre"},
            }
        ],
    }


def node(one: Node, of: Cluster, platform: Platform, machines: Machines) -> Document:
    spec = of.spec
    address = str(machines.address(one))
    return {
        "type": "node",
        "uid": one.name,
        "exotic": spec.exotic,
        "architecture": {
            "nb_procs": 1,
            "nb_cores": spec.cores,
            "nb_threads": spec.cores,
            "platform_type": "x86_64",
        },
        "chassis": {"manufacturer": "Emulated", "name": "Emulated", "serial": one.fqdn},
        "main_memory": {"ram_size": spec.memory_gib * 2**30},
        "network_adapters": [
            *(_adapter(one, number, address) for number in range(spec.interfaces)),
            {
                "device": "bmc",
                "enabled": True,
                "interface": "Ethernet",
                "kavlan": False,
                "management": True,
                "mountable": False,
                "mounted": False,
                "name": "bmc",
                "network_address": one.interface("bmc"),
            },
        ],
        "operating_system": {"ht_enabled": False, "turboboost_enabled": True},
        "performance": {"core_flops": 10**10, "node_flops": spec.cores * 10**10},
        "processor": {
            "model": "Emulated",
            "instruction_set": "x86-64",
            "clock_speed": 2_400_000_000,
            "vendor": "Emulated",
        },
        "software": {"standard-environment": "debian12-std"},
        "storage_devices": [
            {"device": "disk0", "id": "disk0", "interface": "SATA", "storage": "SSD",
             "size": 480 * 10**9}
        ],
        "supported_job_types": {
            "besteffort": True,
            "deploy": True,
            "max_walltime": 0,
            "queues": list(spec.queues),
            "virtual": spec.virtual,
        },
    }  # fmt: skip


def _adapter(one: Node, number: int, address: str) -> Document:
    is_first = number == 0
    site_part, host_part = one.index // 256, one.index % 256
    described: Document = {
        # The VLANs still go by the old name, the system on the node by the new one.
        "device": f"eth{number}",
        "name": f"eno{number + 1}",
        "driver": "ixgbe",
        "enabled": True,
        "interface": "Ethernet",
        "kavlan": True,
        "mac": f"02:00:{number:02x}:{len(one.site):02x}:{site_part:02x}:{host_part:02x}",
        "management": False,
        "mountable": True,
        "mounted": is_first,
        "network_address": one.fqdn if is_first else one.interface(f"eth{number}"),
        "rate": 10**10,
        "switch": f"gw-{one.site}",
    }
    if is_first:
        described["ip"] = address
    return described


def servers(one: Site) -> list[Document]:
    services = {"dns": 1, "frontend": 10, "oar": 3, "kadeploy": 4, "kavlan": 5, "api-server": 6}
    return [
        {
            "type": "server",
            "uid": name,
            "kind": "virtual",
            "alias": ["ns"] if name == "dns" else [],
            "network_adapters": {"default": {"ip": str(one.production[number])}},
        }
        for name, number in services.items()
    ]


def network_equipments(one: Site) -> list[Document]:
    """The router of a site: execo looks here for the site's VLANs."""
    networks = {vlan: net for vlan, net in one.vlan_networks().items() if vlan != "default"}
    return [
        {
            "type": "network_equipment",
            "uid": f"gw-{one.name}",
            "kind": "router",
            "model": "Emulated",
            "site": one.name,
            "vlans": {
                vlan: {"name": f"kavlan-{vlan}", "addresses": [str(network)]}
                for vlan, network in networks.items()
            },
            "linecards": [
                {
                    "kind": "node",
                    "rate": 10**10,
                    "ports": [{"uid": n.name, "port": "eth0"} for n in one.nodes],
                }
            ],
        }
    ]


def backbone(platform: Platform) -> list[Document]:
    return [
        {
            "type": "network_equipment",
            "uid": f"renater-{name}",
            "kind": "virtual",
            "model": "Emulated",
            "site": name,
            "linecards": [
                {
                    "kind": "virtual",
                    "rate": 10**10,
                    "ports": [
                        {"uid": f"gw-{name}"},
                        *({"uid": f"renater-{other}"} for other in platform.sites if other != name),
                    ],
                }
            ],
        }
        for name in platform.sites
    ]


def pdus(one: Site) -> list[Document]:
    return [{"type": "pdu", "uid": f"pdu-{name}", "model": "Emulated"} for name in one.clusters]


def deep(platform: Platform, machines: Machines) -> Document:
    """The whole description in one document, by names except for the nodes."""
    sites: Document = {}
    for name, one in platform.sites.items():
        clusters: Document = {}
        for other, of in one.clusters.items():
            nodes = [node(n, of, platform, machines) for n in of.nodes]
            clusters[other] = {**cluster(of), "nodes": nodes}
        sites[name] = {
            **site(one),
            "clusters": clusters,
            "servers": {server["uid"]: server for server in servers(one)},
            "pdus": {pdu["uid"]: pdu for pdu in pdus(one)},
            "network_equipments": {e["uid"]: e for e in network_equipments(one)},
        }
    equipments = {equipment["uid"]: equipment for equipment in backbone(platform)}
    return {**root(platform), "sites": sites, "network_equipments": equipments}
