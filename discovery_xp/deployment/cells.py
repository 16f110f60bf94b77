"""Nova's cells as the playbooks know them: their hosts, and the files that make services theirs.

What is above the cells, and what there is without them, is configured by nova.conf and
nova-database.conf.  A file more makes a conductor, or nova-manage, one of a cell.
"""

from __future__ import annotations

import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from discovery_xp.boundary import writers
from discovery_xp.planning.layout import CloudLayout

# Nova's name of the one cell of a cloud whose sites share it.
ONE_CELL = "cell1"


@dataclass(frozen=True)
class CellVariables:
    """A cell of Nova.

    `host` has its message bus, which is asked at `bus`, 'ADDRESS:PORT'; `database` is the name of
    its database.  `file` is where hosts have what `contents` says of it.
    """

    name: str
    host: str
    bus: str
    database: str
    file: str


def cell_variables(layout: CloudLayout, addresses: Mapping[str, str]) -> dict[str, CellVariables]:
    """Return the cells of a cloud by name; `addresses` is by host.  None where all share one."""
    return {
        cell.name: CellVariables(
            cell.name,
            cell.host,
            f"{addresses[cell.host]}:{layout.bus(cell.name).port}",
            cell.database,
            f"/etc/nova/nova-cell-{cell.name}.conf",
        )
        for cell in layout.cells
    }


def mappings(cells: Mapping[str, CellVariables]) -> tuple[str, ...]:
    """Return what Nova maps, as 'NAME=FILE': of each cell its file, none of the one for all."""
    return tuple(f"{cell.name}={cell.file}" for cell in cells.values()) or (f"{ONE_CELL}=",)


def contents(
    cells: Mapping[str, CellVariables],
    database_urls: Mapping[str, str],
    bus_password: str,
    settings: Mapping[str, Mapping[str, Any]],
) -> dict[str, str]:
    """Return the text of each cell's file, with its passwords in it.

    `settings` are those of nova-database.conf: what they say of databases holds of these, too.
    """
    password = urllib.parse.quote(bus_password, safe="")
    return {
        cell.file: writers.ini(
            {
                "DEFAULT": {"transport_url": f"rabbit://openstack:{password}@{cell.bus}/"},
                "database": {"connection": database_urls[cell.database]},
            },
            {"database": settings.get("database", {})},
        )
        for cell in cells.values()
    }
