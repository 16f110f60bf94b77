"""Which of the services' tests are theirs of the database."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Suite:
    """Tests of one service: `package` is imported first, `modules` are what is run.

    Where `base` names a class, as `module:Class`, only tests of classes that are derived from it.
    """

    name: str
    title: str
    package: str
    modules: tuple[str, ...]
    sample: int  # how many tests a sample has
    threshold: float  # per cent of those that pass on SQLite
    base: str = ""


# Neutron's tests that set a database up: in the same modules it has many more on mocks of one.
_NEUTRONS = "neutron.tests.unit.testlib_api:BaseSqlTestCase"

SUITES = {
    suite.name: suite
    for suite in (
        Suite("nova-unit", "Nova, unit", "nova.tests.unit",
              ("nova.tests.unit.db",), 50, 99.0),
        Suite("nova-functional", "Nova, functional", "nova.tests.functional",
              ("nova.tests.functional.db",), 30, 99.0),
        Suite("placement", "Placement", "placement.tests",
              ("placement.tests.functional.cmd",
               "placement.tests.functional.db",
               "placement.tests.functional.test_allocation",
               "placement.tests.functional.test_allocation_candidates",
               "placement.tests.functional.test_direct",
               "placement.tests.functional.test_lib_sync",
               "placement.tests.functional.test_verify_policy"), 40, 98.0),
        Suite("glance", "Glance", "glance.tests",
              ("glance.tests.functional.db",
               "glance.tests.functional.image_cache.drivers.test_centralized_db"), 40, 98.0),
        Suite("keystone", "Keystone", "keystone.tests.unit",
              ("keystone.tests.unit.application_credential.backends.test_sql",
               "keystone.tests.unit.assignment.role_backends.test_sql",
               "keystone.tests.unit.common.sql",
               "keystone.tests.unit.common.test_database_conflicts",
               "keystone.tests.unit.common.test_sql_core",
               "keystone.tests.unit.credential",
               "keystone.tests.unit.endpoint_policy",
               "keystone.tests.unit.identity.backends.test_sql",
               "keystone.tests.unit.identity.test_backend_sql",
               "keystone.tests.unit.identity.test_core",
               "keystone.tests.unit.policy",
               "keystone.tests.unit.resource",
               "keystone.tests.unit.test_backend_endpoint_policy_sql",
               "keystone.tests.unit.test_backend_federation_sql",
               "keystone.tests.unit.test_backend_id_mapping_sql",
               "keystone.tests.unit.test_backend_sql",
               "keystone.tests.unit.test_limits",
               "keystone.tests.unit.test_revoke",
               "keystone.tests.unit.test_shadow_users",
               "keystone.tests.unit.test_sql_banned_operations",
               "keystone.tests.unit.test_sql_upgrade",
               "keystone.tests.unit.test_v3_assignment"), 40, 98.0),
        Suite("neutron", "Neutron", "neutron.tests.unit",
              ("neutron.tests.common.test_db_base_plugin_v2",
               "neutron.tests.functional.db.test_ipam",
               "neutron.tests.functional.db.test_models",
               "neutron.tests.functional.db.test_network",
               "neutron.tests.functional.db.test_rangeallocator"), 50, 98.0, _NEUTRONS),
    )
}  # fmt: skip
