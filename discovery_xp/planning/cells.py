"""How Nova is split into cells, one for each site: who has a cell's database and message bus.

Pure, as plans are.  With `layout: shared` there is one cell for all sites, and nothing here is
asked.  With `layout: cells` each site with computes is a cell of its own: its conductors are on
its controllers, its database and its message bus on one host of the site.  What is above the
cells (APIs, schedulers, super conductors, their bus and databases) is where it is without them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from discovery_xp.errors import Refused
from discovery_xp.inputs.topology import OpenStack
from discovery_xp.planning.hosts import PlannedHost

# Of a topology: the value of `layout` that makes a cell of each site.
CELLS = "cells"
# The roles of a host that may have a cell's database and message bus, the first choice first.
ROLES = ("data", "controller")
_DATABASE = "nova_cell_"
FEWEST = 2


@dataclass(frozen=True)
class Cell:
    """A cell of Nova, named after its site.

    `host` runs its message bus, and its database unless others hold it (Galera, a Redis Cluster);
    `database` is the database's name.
    """

    name: str
    host: str
    database: str


def database_of(cell: str) -> str:
    """Return the name of a cell's database: none of another cell's, whatever the sites' names."""
    return f"{_DATABASE}{cell.replace('-', '_')}"


def is_database_of_cell(name: str) -> bool:
    """Tell whether a database is a cell's own."""
    return name.startswith(_DATABASE)


def decide(
    options: OpenStack, hosts: Sequence[PlannedHost], master: PlannedHost
) -> tuple[Cell, ...]:
    """Decide the cells of a cloud, in the order of the sites; none with one cell for all.

    Raises Refused where a site can't be a cell, or there is nothing to split.
    """
    if options.layout != CELLS:
        return ()
    by_site: dict[str, list[PlannedHost]] = {}
    for host in hosts:
        by_site.setdefault(host.site, []).append(host)
    cells = tuple(_cells(by_site, master))
    if len(cells) < FEWEST:
        raise Refused(
            f"'layout: {CELLS}' makes a cell of each site with computes, and there is "
            f"{'one' if cells else 'none'}",
            "write 'layout: shared', or 'computes: 1' for another site",
        )
    return cells


def _cells(by_site: dict[str, list[PlannedHost]], master: PlannedHost) -> Iterator[Cell]:
    for site, own in by_site.items():
        if not any("compute" in host.roles for host in own):
            continue
        if not any("controller" in host.roles for host in own):
            raise Refused(
                f"site '{site}' has computes and no controller, and with 'layout: {CELLS}' the "
                "conductors of its cell run there",
                f"write 'controllers: 1' for '{site}', or 'layout: shared'",
            )
        # A host has one RabbitMQ, and the master's is the bus above the cells.
        free = [host for role in ROLES for host in own if role in host.roles and host is not master]
        if not free:
            raise Refused(
                f"site '{site}' has no host for the message bus of its cell: its only controller "
                "is the master, with the bus above the cells",
                f"write 'data: 1' for '{site}', or 'master: {site}' in place of 'none'",
            )
        yield Cell(site, free[0].name, database_of(site))
