"""RO-Crate metadata of an artifact: its files, and each run as an action with what made it.

It follows RO-Crate 1.1, which archives read, and the Process Run Crate profile: a run is a
CreateAction of the toolkit, whose object is the topology and the scenario, and whose result the
run's folder.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Collection, Sequence

from discovery_xp.artifact.collecting import Collected
from discovery_xp.artifact.metadata import LICENSE, software

NAME = "ro-crate-metadata.json"
_VERSION = "1.1"
_PROFILE = "https://w3id.org/ro/wfrun/process/0.5"
_LICENSE_URL = f"https://spdx.org/licenses/{LICENSE}"
_FORMATS = {
    ".md": "text/markdown",
    ".json": "application/json",
    ".cff": "application/yaml",
    ".yaml": "application/yaml",
    ".html": "text/html",
    ".csv": "text/csv",
    ".gz": "application/gzip",
    ".parquet": "application/vnd.apache.parquet",
}


def metadata(
    title: str,
    description: str,
    authors: Sequence[str],
    moment: int,
    collected: Sequence[Collected],
    others: Collection[str],
) -> str:
    """Return ro-crate-metadata.json; `others` are the files that are of no run."""
    from rocrate.model.contextentity import ContextEntity
    from rocrate.model.person import Person
    from rocrate.model.softwareapplication import SoftwareApplication
    from rocrate.rocrate import ROCrate

    own = software()
    crate = ROCrate(version=_VERSION)
    crate.name, crate.description = title, description
    crate.datePublished = datetime.datetime.fromtimestamp(moment, datetime.UTC)
    crate.license = crate.add(
        ContextEntity(crate, _LICENSE_URL, {"@type": "CreativeWork", "name": LICENSE})
    )
    crate.creator = [
        crate.add(Person(crate, f"#author-{number}", {"name": author}))
        for number, author in enumerate(authors, start=1)
    ]
    profile = crate.add(
        ContextEntity(crate, _PROFILE, {"@type": "CreativeWork", "name": "Process Run Crate",
                                        "version": "0.5"})
    )  # fmt: skip
    crate.root_dataset["conformsTo"] = profile
    crate.root_dataset["keywords"] = ", ".join(own.keywords)
    tool = crate.add(
        SoftwareApplication(
            crate, "#discovery-xp",
            {"name": own.name, "version": own.version, "softwareVersion": own.version,
             "description": own.summary},
        )
    )  # fmt: skip
    for name in sorted(others):
        crate.add_file(dest_path=name, properties=_format(name))
    actions = [_add_run(crate, each, tool) for each in collected]
    crate.root_dataset["mentions"] = actions
    content = crate.metadata.generate()
    # Random or moving parts would make two crates of the same runs differ.
    content["@graph"].sort(key=lambda entity: (entity["@id"] != NAME, entity["@id"]))
    return json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def _add_run(crate: object, collected: Collected, tool: object) -> object:
    """Add a run's folder, its files and its action; return the action."""
    from rocrate.model.contextentity import ContextEntity
    from rocrate.rocrate import ROCrate

    assert isinstance(crate, ROCrate)
    record = collected.run.load()
    words = (
        f"{record.backend}, {record.sites} sites, {record.vms.asked} VMs, {record.status}"
        if not record.is_verification
        else f"OpenStack's own tests on {record.backend}, {record.status}"
    )
    dataset = crate.add_dataset(
        dest_path=f"{collected.place}/",
        properties={"name": collected.run.name, "description": words},
    )
    files = {
        name: crate.add_file(dest_path=name, properties=_format(name))
        for name in sorted(collected.files)
    }
    dataset["hasPart"] = list(files.values())
    asked = [files[name] for part in ("topology.yaml", "scenario.yaml")
             if (name := f"{collected.place}/{part}") in files]  # fmt: skip
    action = crate.add(
        ContextEntity(
            crate,
            f"#{collected.place}",
            {
                "@type": "CreateAction",
                "name": collected.run.name,
                "startTime": record.started,
                **({"endTime": record.ended} if record.ended else {}),
                "actionStatus": f"http://schema.org/{_status(record.is_partial)}",
            },
        )
    )
    action["instrument"], action["object"], action["result"] = tool, asked, dataset
    if record.commit:
        action["description"] = f"{words}; by commit {record.commit}"
    return action


def _status(is_partial: bool) -> str:
    return "FailedActionStatus" if is_partial else "CompletedActionStatus"


def _format(name: str) -> dict[str, str]:
    for ending, kind in _FORMATS.items():
        if name.endswith(ending):
            return {"encodingFormat": kind}
    return {"encodingFormat": "text/plain"}
