"""Tables of what the code itself defines: commands, ports, columns, files that ship."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import click

from discovery_xp.analysis.prometheus import family_name
from discovery_xp.artifact.claims import CLAIMED
from discovery_xp.cli.main import cli
from discovery_xp.inputs.topology import read_topology
from discovery_xp.onhost.wire.series import METRICS
from discovery_xp.planning import ports
from discovery_xp.planning.plan import make_plan
from discovery_xp.store.tables import TABLES
from docs.generator.blocks import ROOT, table


def listeners() -> str:
    """Return the table of what listens where."""
    return ports.as_markdown()


# ---------------------------------------------------------------- the command line


def _commands(group: click.Group, prefix: str = "") -> Iterator[tuple[str, click.Command]]:
    for name in group.commands:
        command = group.commands[name]
        if isinstance(command, click.Group):
            yield from _commands(command, f"{prefix}{name} ")
        else:
            yield f"{prefix}{name}", command


def commands() -> str:
    """Return every command of the command line with the first line of its help."""
    rows = [
        [f"[`{name}`](#{name.replace(' ', '-')})", (command.help or "").split("\n\n")[0]]
        for name, command in _commands(cli)
    ]
    return table(["Command", ""], [[name, " ".join(words.split())] for name, words in rows])


def command_help() -> str:
    """Return every command with its help, arguments and options."""
    parts = []
    for name, command in _commands(cli):
        context = click.Context(command, info_name=f"discovery-xp {name}")
        usage = command.get_usage(context).removeprefix("Usage: ")
        paragraphs = [" ".join(part.split()) for part in (command.help or "").split("\n\n")]
        parts.append(f"### {name}\n\n`{' '.join(usage.split())}`\n")
        parts += [f"{paragraph}\n" for paragraph in paragraphs]
        records = [
            option.get_help_record(context)
            for option in command.params
            if isinstance(option, click.Option) and not option.hidden
        ]
        rows = [[f"`{record[0]}`", record[1]] for record in records if record is not None]
        if rows:
            parts.append(table(["Option", ""], rows))
    return "\n".join(parts)


# ---------------------------------------------------------------- stored tables


def columns(name: str) -> str:
    """Return the columns of a stored table: type, whether null, and the values it may hold."""
    rows = []
    for column in TABLES[name]:
        values = ", ".join(f"`{value}`" for value in column.values)
        rows.append([f"`{column.name}`", column.type + " or null" * column.null, values])
    has_values = any(row[2] for row in rows)
    head = ["Column", "Type", "Values"]
    return table(head if has_values else head[:2], rows if has_values else [r[:2] for r in rows])


def claim_figures() -> str:
    """Return the figures that a claim may be about."""
    return table(["Figure", ""], [[f"`{key}`", each.words] for key, each in CLAIMED.items()])


def series_metrics() -> str:
    """Return the metrics of the table `series`, with their names in Prometheus."""
    rows = [
        [f"`{name}`", "counter" if metric.is_counter else "gauge", metric.words,
         f"`{family_name(name)}{'_total' * metric.is_counter}`"]
        for name, metric in METRICS.items()
    ]  # fmt: skip
    return table(["Metric", "", "What it is", "Exported as"], rows)


# ---------------------------------------------------------------- files that ship


def topologies() -> str:
    """Return the topologies that ship, the smallest first."""
    rows = []
    for path in (ROOT / "topologies").glob("*.yaml"):
        topology = read_topology(path)
        hosts = len(make_plan(topology, cloud=True).hosts)
        name = f"`topologies/{path.name}`"
        provider = topology.provider.type
        rows.append((hosts, [name, topology.description, str(len(topology.sites)), str(hosts),
                             f"`{provider}`"]))  # fmt: skip
    return table(["File", "", "Sites", "Hosts", "Provider"], [row for _hosts, row in sorted(rows)])


# ---------------------------------------------------------------- the modules


def modules(folder: str) -> str:
    """Return the modules of a package, in folders and by themselves, with what each is."""
    root = ROOT / folder
    rows = []
    for path in sorted(root.rglob("*.py"), key=lambda each: (len(each.parts), each)):
        name = path.relative_to(root)
        if name.name in ("__init__.py", "__main__.py"):
            continue
        rows.append([f"`{name}`", _first_sentence(path)])
    rows.sort(key=lambda row: (row[0].count("/") == 0, row[0]))
    return table(["Module", ""], rows)


def _first_sentence(path: Path) -> str:
    """Return the first sentence of a module's docstring, without its full stop."""
    text = ast.get_docstring(ast.parse(path.read_text())) or ""
    paragraph = " ".join(text.split("\n\n")[0].split())
    return re.split(r"(?<=[^.])\.(?: |$)|(?<=:) *$", paragraph)[0].rstrip(":")
