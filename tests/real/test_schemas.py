"""Schemas that a cloud's migrations made are kept; `test_rome` has a cloud that loads them."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from discovery_xp.deployment import schemas
from discovery_xp.onhost.cloud import schema_dumps
from discovery_xp.planning.databases import OWNERS
from tests.real.cloud import is_loaded, keep_schemas, on
from tests.real.conftest import HOME, Cli

pytestmark = [pytest.mark.real, pytest.mark.timeout(1200)]

MASTER = "a-master-1"
FOLDER = HOME / "testbeds/schemas"

# Loads each dump into a database of its own; prints what differs from the dump, and from the
# tables that migrations made and services have used since.
COMPARE = """
import json, subprocess, sys
sys.path.insert(0, "/root")
import schema_dumps as dumps
def ask(sql):
    return subprocess.run(["mariadb", "--skip-column-names", "--raw"], input=sql, text=True,
                          check=True, capture_output=True).stdout
def tables(database):
    names = ask("SELECT TABLE_NAME FROM information_schema.TABLES "
                f"WHERE TABLE_SCHEMA = '{database}' ORDER BY 1").split()
    text = ask("".join(f"SHOW CREATE TABLE `{database}`.`{name}`;" for name in names))
    return [part for part in text.split() if not part.startswith("AUTO_INCREMENT=")]
count, address = 0, ask("SELECT @@bind_address").strip()
for name, dump in json.load(sys.stdin).items():
    url = f"mysql+pymysql://loaded:loaded@{address}/loaded"
    ask("CREATE DATABASE loaded; CREATE USER loaded@'%' IDENTIFIED BY 'loaded'; "
        "GRANT ALL ON loaded.* TO loaded@'%'")
    sql = dumps.unpack(dump["sql"])
    dumps._load(url, sql)
    if dumps.dump("loaded") != sql:
        print(name, "differs from its dump")
    if tables("loaded") != tables(name):
        print(name, "differs from what was migrated")
    count += tables(name).count("CREATE")
    ask("DROP DATABASE loaded; DROP USER loaded@'%'")
print(count, "tables")
"""


@pytest.fixture(scope="module")
def cloud(cli: Cli) -> Iterator[None]:
    """A cloud on hosts that are new, made while nothing was kept."""
    keep_schemas(cli)
    yield
    cli.run("destroy")


def test_what_is_kept_is_what_was_migrated(cli: Cli, cloud: None) -> None:
    assert is_loaded("schemas") == dict.fromkeys(OWNERS, False)
    kept = schemas.read()
    assert kept.keys() == OWNERS.keys()
    files = {
        "schema_dumps.py": Path(schema_dumps.__file__).read_text(),
        "dumps.json": json.dumps(kept),
    }
    for name, text in files.items():
        on(cli, MASTER, f"cat >/root/{name} <<'END'\n{text}\nEND\n")
    python = f"/opt/openstack/bin/python -c {shlex.quote(COMPARE)} </root/dumps.json"
    count, *differences = reversed(on(cli, MASTER, python).splitlines())
    assert differences == []
    assert int(count.split()[0]) > 400


def test_nothing_of_the_cloud_is_kept(cloud: None) -> None:
    unpacked = [schema_dumps.unpack(dump["sql"]) for dump in schemas.read().values()]
    secrets = json.loads((FOLDER / "passwords.json").read_text())
    for secret in (*secrets.values(), "10.", "a-master-1"):
        assert not [sql for sql in unpacked if str(secret) in sql]
    for table in ("cell_mappings", "user", "password", "endpoint", "services", "images"):
        assert not [sql for sql in unpacked if f"INSERT INTO `{table}`" in sql]
