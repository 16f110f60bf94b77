"""Nova's own services and Placement in one process, booting VMs on the databases it is given.

The harness is that of Nova's functional tests, from the released package: the API, a conductor,
a scheduler and computes with the fake driver, the message bus in memory, casts run as calls, so
that a boot is over when its request is answered; Placement behind its own WSGI application;
Glance, Neutron and Cinder are Nova's fakes, and there is no Keystone.  What the harness would
do with SQLite is replaced: the databases are made by the services' migrations where the URLs
say, and the cells' mappings hold these URLs.
"""

# ruff: noqa: E402 - Nova wants to be asked for threads or greenlets before all imports
from __future__ import annotations

from nova import monkey_patch

monkey_patch.patch()  # with the variable that workers get: native threads, nothing patched

import collections
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import fixtures
import sqlalchemy as sa
from nova import context, objects, test
from nova.db import migration as nova_migration
from nova.db.api import api as nova_api_db
from nova.db.main import api as nova_db
from nova.tests import fixtures as nova_fixtures
from nova.tests.functional import fixtures as functional
from nova.tests.functional import integrated_helpers
from placement import db_api as placement_db
from placement.db.sqlalchemy import migration as placement_migration

from .marks import Marks
from .orders import begin, serve

CONF = test.CONF
COMPUTES = 2
_URLS: dict[str, str] = {}


class GivenDatabases(fixtures.Fixture):  # type: ignore[misc]
    """Instead of Nova's fixture, which wants SQLite."""

    def __init__(self, database: str = "main", **_: Any) -> None:
        super().__init__()

    def setUp(self) -> None:
        """Of fixtures."""
        super().setUp()
        CONF.set_override("connection", _URLS["nova"], "database")
        CONF.set_override("connection", _URLS["nova_api"], "api_database")
        nova_db.configure(CONF)
        nova_api_db.configure(CONF)
        nova_migration.db_sync(database="api")
        nova_migration.db_sync(database="main")
        cell0 = context.RequestContext()
        cell0.db_connection = nova_db.create_context_manager(_URLS["nova_cell0"])
        nova_migration.db_sync(database="main", context=cell0)


class GivenPlacement(functional.PlacementFixture):  # type: ignore[misc]
    """Placement, its database where the URL says."""

    def __init__(self) -> None:
        super().__init__(db=False)

    def _configure_placement(self, conf_fixture: Any) -> None:
        conf_fixture.config(connection=_URLS["placement"], group="placement_database")
        placement_db.configure(conf_fixture.conf)
        placement_migration.upgrade("head")


class Cloud(test.TestCase, integrated_helpers.PlacementInstanceHelperMixin):  # type: ignore[misc]
    """The services."""

    microversion = "2.37"  # the oldest that takes "none" for networks

    def setUp(self) -> None:
        """As Nova's functional tests have it, on the given databases."""
        nova_fixtures.Database = GivenDatabases
        # What the services do without being asked is no part of a boot.
        self.flags(compute_driver="fake.MediumFakeDriver", report_interval=0)
        for resource in ("instances", "cores", "ram"):  # each boot stays
            self.flags(**{resource: -1}, group="quota")
        super().setUp()
        paste = Path(sys.prefix) / "etc/nova/api-paste.ini"
        self.flags(api_paste_config=str(paste), group="wsgi")
        self.useFixture(nova_fixtures.CastAsCallFixture(self))
        self.placement = self.useFixture(GivenPlacement()).api
        self.neutron = self.useFixture(nova_fixtures.NeutronFixture(self))
        self.glance = self.useFixture(nova_fixtures.GlanceFixture(self))
        self.useFixture(nova_fixtures.CinderFixture(self))
        self.useFixture(nova_fixtures.RealPolicyFixture())
        self.notifier = self.useFixture(nova_fixtures.NotificationFixture(self))
        self.start_service("conductor")
        self.start_service("scheduler")
        for index in range(COMPUTES):
            self._start_compute(f"compute-{index}")
        fixture = self.useFixture(nova_fixtures.OSAPIFixture(api_version="v2.1"))
        self.api = fixture.admin_api
        self.api.microversion = self.microversion

    def _setup_cells(self) -> None:
        admin = context.get_context()
        for name, identity, database in (
            ("cell0", objects.CellMapping.CELL0_UUID, "nova_cell0"),
            ("cell1", "0fb56f64-5c1c-4bb4-9c1b-3b2f2f7a0e11", "nova"),
        ):
            self.cell_mappings[name] = objects.CellMapping(
                admin,
                uuid=identity,
                name=name,
                transport_url="fake://nowhere/",
                database_connection=_URLS[database],
            )
            self.cell_mappings[name].create()

    def runTest(self) -> None:  # noqa: N802
        """A test case wants one."""

    def boot(self) -> str:
        """Look the flavor up, ask for a VM, and look at it when it is there; its status."""
        self.notifier.reset()
        flavors = self.api.get_flavors()
        flavor = next(it for it in flavors if it["name"] == "m1.tiny")
        image = "155d900f-4e14-4e4c-a73d-069cbf4541e6"
        server = self.api.post_server(
            {
                "server": {
                    "name": "vm",
                    "imageRef": image,
                    "flavorRef": flavor["id"],
                    "networks": "none",
                }
            }
        )
        self.notifier.wait_for_versioned_notifications("instance.create.end", timeout=300)
        status: str = self.api.get_server(server["id"])["status"]
        return status


# ---------------------------------------------------------------- the worker


class BootWorker:
    """Does the orders."""

    def __init__(self) -> None:
        self._cloud = Cloud()
        self._statements: list[str] = []

    def start(self) -> None:
        """The services, on empty databases."""
        self._cloud.setUp()
        sa.event.listen(sa.engine.Engine, "after_cursor_execute", self._executed)
        sa.event.listen(sa.engine.Engine, "begin", self._began)

    def _executed(self, _c: Any, _cursor: Any, statement: str, *_: Any) -> None:
        self._statements.append(statement.strip())

    def _began(self, _: Any) -> None:
        self._statements.append("BEGIN")

    def boot(self) -> dict[str, Any]:
        """One VM."""
        self._statements = []
        started = time.perf_counter()
        self._boot()
        seconds = time.perf_counter() - started
        kinds = collections.Counter(words.split(None, 1)[0] for words in self._statements)
        return {"kinds": kinds, "seconds": round(seconds, 3)}

    def trace(self, control: int) -> list[list[Any]]:
        """One VM: what is asked, in order, with milliseconds and turns, as the proxy has them."""
        with Marks(control) as marks:
            self._boot()
        return marks.segments()

    def _boot(self) -> None:
        status = self._cloud.boot()
        if status != "ACTIVE":
            raise RuntimeError(f"the VM is {status}, not ACTIVE")


def main() -> None:
    """The process; its argument are the databases' URLs by name, as JSON."""
    answers = begin()
    _URLS.update(json.loads(sys.argv[1]))
    serve(answers, BootWorker())
    os._exit(0)  # the services' threads are not waited for


if __name__ == "__main__":
    main()
