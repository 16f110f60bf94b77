"""Run the services' own migrations on an empty store: `python -m tests.openstack.migrations`.

Each is run twice: the second time must change nothing.  Then the services' own commands look
at what was made, and the schema is compared with the one that the same commands make on SQLite.
"""

# ruff: noqa: T201 (a command prints)

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.openstack.environment import Failed, ensure_environment, installed_rome
from tests.openstack.report import HERE, service_versions
from tests.openstack.server import STORES, own_url

SCHEMA = Path(__file__).with_name("schema.py")
TIMEOUT_S = 900


@dataclass(frozen=True)
class Service:
    """A service's migrations; `{name}` in a command is the URL of the database `name`."""

    name: str
    databases: dict[str, str]  # the environment's variable: the database's name
    sync: tuple[str, ...]
    after: tuple[str, ...]
    settings: dict[str, str] = field(default_factory=dict)  # `{work}` is a folder of its own

    @property
    def names(self) -> list[str]:
        """All its databases, those which only commands name, too."""
        return [*self.databases.values(), *(("nova_cell0",) if self.name == "nova" else ())]


SERVICES = {
    service.name: service
    for service in (
        Service(
            "nova",
            {"OS_API_DATABASE__CONNECTION": "nova_api", "OS_DATABASE__CONNECTION": "nova"},
            ("nova-manage api_db sync",
             "nova-manage cell_v2 map_cell0 --database_connection {nova_cell0}",
             "nova-manage db sync"),
            ("nova-manage api_db version",
             "nova-manage db version",
             "nova-manage cell_v2 create_cell --name cell1 --transport-url fake://",
             "nova-manage cell_v2 list_cells --verbose",
             "nova-manage db online_data_migrations",
             "nova-manage db archive_deleted_rows --all-cells"),
        ),
        Service(
            "placement",
            {"OS_PLACEMENT_DATABASE__CONNECTION": "placement"},
            ("placement-manage db sync",),
            ("placement-manage db version",
             "placement-manage db online_data_migrations",
             "placement-status upgrade check"),
        ),
        Service(
            "keystone",
            {"OS_DATABASE__CONNECTION": "keystone"},
            ("keystone-manage db_sync",),
            ("keystone-manage db_version",
             "keystone-manage db_sync --check",
             "keystone-manage fernet_setup --keystone-user root --keystone-group root",
             "keystone-manage bootstrap --bootstrap-password secret --bootstrap-region-id one"
             " --bootstrap-public-url http://127.0.0.1:5000",
             "keystone-status upgrade check"),
            {"OS_FERNET_TOKENS__KEY_REPOSITORY": "{work}/fernet"},
        ),
        Service(
            "glance",
            {"OS_DATABASE__CONNECTION": "glance"},
            ("glance-manage db_sync",),
            ("glance-manage db_version",
             "glance-manage db load_metadefs {etc}/glance/metadefs"),
        ),
        Service(
            "neutron",
            {"OS_DATABASE__CONNECTION": "neutron"},
            ("neutron-db-manage upgrade heads",),
            ("neutron-db-manage current",
             "neutron-db-manage has_offline_migrations"),
        ),
    )
}  # fmt: skip


@dataclass
class Report:
    """What a service's migrations came to on one database."""

    service: str
    failures: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    answers: dict[str, str] = field(default_factory=dict)
    schemas: dict[str, Any] = field(default_factory=dict)
    repeat_changes_nothing: bool = False


class Runner:
    """Runs commands of the suites' environment on the databases of a URL."""

    def __init__(self, python: Path, path: str, url: str, work: Path) -> None:
        self._python = python
        self._path = path
        self._url = url
        self._work = work
        work.mkdir()

    def made(self, service: Service) -> Report:
        """A service's databases, made by its migrations."""
        report = Report(service.name)
        if all(self._command(service, command, command, report) for command in service.sync):
            report.schemas = self._schemas(service, report)
        return report

    def checked(self, service: Service) -> Report:
        """The same, twice, and then used."""
        report = self.made(service)
        before = report.schemas
        if not before:
            return report
        for command in service.sync:
            if not self._command(service, command, f"{command} (again)", report):
                return report
        report.schemas = self._schemas(service, report)
        report.repeat_changes_nothing = before == report.schemas
        if not report.repeat_changes_nothing:
            report.failures.append("the migrations, run again, changed the databases")
        for command in service.after:
            self._command(service, command, command, report)
        return report

    def _command(self, service: Service, command: str, title: str, report: Report) -> bool:
        words = command.split()
        urls = {name: self._at(name) for name in service.names}
        etc = str(self._python.parents[1] / "etc")
        words = [word.format(**urls, etc=etc) for word in words]
        start = time.monotonic()
        done = self._run(service, str(self._python.parent / words[0]), *words[1:])
        report.seconds[title] = round(time.monotonic() - start, 1)
        said = done.stdout.strip().splitlines()
        report.answers[title] = said[-1] if said else ""
        if done.returncode:
            errors = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
            report.failures.append(
                f"{title}: exit code {done.returncode}: {' / '.join(errors[-2:])[-500:]}"
            )
        return done.returncode == 0

    def _schemas(self, service: Service, report: Report) -> dict[str, Any]:
        schemas = {}
        for name in service.names:
            done = self._run(service, str(self._python), str(SCHEMA), self._at(name))
            if done.returncode:
                said = done.stderr.strip().splitlines()[-1:]
                report.failures.append(f"the schema of {name} can't be read: {' '.join(said)}")
                continue
            schemas[name] = json.loads(done.stdout)
        return schemas

    def _run(self, service: Service, *command: str) -> subprocess.CompletedProcess[str]:
        keep = {n: v for n, v in os.environ.items() if not n.startswith(("OS_", "PYTHON"))}
        urls = {variable: self._at(name) for variable, name in service.databases.items()}
        settings = {n: v.format(work=self._work) for n, v in service.settings.items()}
        ours = {"PYTHONPATH": self._path, "PYTHONWARNINGS": "ignore"}
        try:
            return subprocess.run(
                command, cwd=self._work, env={**keep, **urls, **settings, **ours},
                stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=TIMEOUT_S,
                check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return subprocess.CompletedProcess(command, 1, "", f"no end within {TIMEOUT_S} s")

    def _at(self, name: str) -> str:
        return self._url.replace("DATABASE", name)


# Keystone's first migration adds this key `if bind.engine.name == 'sqlite'`, and only then.
ONLY_ON_SQLITE = {"keystone.tables.assignment.foreign keys.['role_id'] -> role['id'] []"}


def differences(ours: dict[str, Any], theirs: dict[str, Any], place: str = "") -> Iterator[str]:
    """Where two schemas differ, a line for each place.

    Constraints that have no name on SQLite have one on ROME, as on other databases.
    """
    for name in sorted({*ours, *theirs}):
        here = f"{place}.{name}" if place else name
        one, other = ours.get(name), theirs.get(name)
        if here in ONLY_ON_SQLITE:
            continue
        if isinstance(one, dict) and isinstance(other, dict):
            yield from differences(one, other, here)
        elif name not in ours or name not in theirs or (one != other and other is not None):
            yield f"{here}: {json.dumps(one)}, on SQLite {json.dumps(other)}"


def main() -> int:
    """0: all is well; 1: not; 2: it couldn't be run."""
    options = _options()
    # So that a run that is told to end takes its servers and folders with it.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    failed = False
    results = {}
    try:
        with contextlib.ExitStack() as stack:
            python = ensure_environment()
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            sqlite_url = f"sqlite:///{folder}/DATABASE.sqlite"
            on_sqlite = Runner(python, "", sqlite_url, folder / "sqlite")
            rome = stack.enter_context(installed_rome(python))
            url = options.url or stack.enter_context(own_url(options.store, "DATABASE"))
            on_rome = Runner(python, rome.path, url, folder / "rome")
            for name in options.services:
                report = on_rome.checked(SERVICES[name])
                reference = on_sqlite.made(SERVICES[name])
                # Neutron's migrations don't run on SQLite: there is nothing to compare with.
                differ = list(differences(report.schemas, reference.schemas or report.schemas))
                failed |= bool(report.failures or differ)
                results[name] = _as_data(report, reference, differ)
                _print(report, reference, differ)
    except Failed as failure:
        print(f"error: {failure}", file=sys.stderr)
        return 2
    said = {"format": 1, "commit": rome.commit, "versions": service_versions(), "services": results}
    text = json.dumps(said, indent=1)
    if options.json:
        options.json.write_text(text + "\n")
    if options.save:
        (HERE / "results").mkdir(exist_ok=True)
        (HERE / "results/migrations.json").write_text(text + "\n")
    return 1 if failed else 0


def _as_data(report: Report, reference: Report, differ: list[str]) -> dict[str, Any]:
    return {
        "failures": report.failures,
        "failures_on_sqlite": reference.failures,
        "repeat_changes_nothing": report.repeat_changes_nothing,
        "tables": {name: len(schema["tables"]) for name, schema in report.schemas.items()},
        "schema_differences": differ,
        "seconds": report.seconds,
        "seconds_on_sqlite": reference.seconds,
    }


def _print(report: Report, reference: Report, differ: list[str]) -> None:
    print(f"{report.service}: {'fails' if report.failures or differ else 'well'}")
    for command, seconds in report.seconds.items():
        beside = reference.seconds.get(command)
        print(f"  {seconds:6.1f} s (SQLite {beside} s)  {command}: {report.answers[command][:60]}")
    for schema in report.schemas:
        print(f"  {schema}: {len(report.schemas[schema]['tables'])} tables")
    for failure in report.failures:
        print(f"  failed: {failure}")
    for failure in reference.failures:
        print(f"  failed on SQLite: {failure}")
    for line in differ[:20]:
        print(f"  differs: {line}")
    if len(differ) > 20:
        print(f"  and {len(differ) - 20} more differences")
    sys.stdout.flush()


class _Options(argparse.Namespace):
    services: list[str]
    url: str | None
    store: str
    save: bool
    json: Path | None


def _options() -> _Options:
    parser = argparse.ArgumentParser(
        prog="python -m tests.openstack.migrations",
        description="Run the services' own migrations, unmodified, on an empty store, twice.",
    )
    parser.add_argument("services", nargs="*", metavar="SERVICE",
                        help=f"of {', '.join(SERVICES)} (all)")  # fmt: skip
    parser.add_argument("--url", help="database URL with DATABASE for a database's name, where"
                        " none of them is (ROME on a server of this run)")  # fmt: skip
    parser.add_argument("--store", choices=STORES, default="redis",
                        help="that ROME uses where no URL is given (%(default)s)")  # fmt: skip
    parser.add_argument("--save", action="store_true", help="write to results/migrations.json")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what came of it there")
    options = parser.parse_args(namespace=_Options())
    options.services = options.services or list(SERVICES)
    for name in options.services:
        if name not in SERVICES:
            parser.error(f"no service is called '{name}'; there are {', '.join(SERVICES)}")
    if options.save and options.store != "redis":
        parser.error("--save is for ROME on Redis, whose figures the README shows")
    if options.url and "DATABASE" not in options.url:
        parser.error("--url needs DATABASE where a database's name goes")
    return options


if __name__ == "__main__":
    sys.exit(main())
