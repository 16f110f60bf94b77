"""Every component's records of a cloud, fetched from its hosts."""

from __future__ import annotations

import shutil
from pathlib import Path

from discovery_xp import software
from discovery_xp.boundary import answers, archives
from discovery_xp.deployment.description import deployment_file
from discovery_xp.deployment.play import log_file, run_playbook
from discovery_xp.deployment.variables import play_variables
from discovery_xp.errors import Failed, Refused
from discovery_xp.onhost.catalogue import COMPONENTS
from discovery_xp.testbeds.hosts import Hosts, Progress
from discovery_xp.testbeds.testbed import Testbed

# The module that packs a component's records; the task's subject is the component.
MODULE = "component_backup"


def backup(hosts: Hosts, testbed: Testbed, target: Path, progress: Progress) -> int:
    """Write every component's records to TARGET/HOST/COMPONENT; returns the number of files.

    Configurations, journals, database dumps and versions; secrets are replaced by their
    names.  Raises Refused when `target` exists, Failed when a host can't be asked, or when
    what it sent is no archive of a component's files: those of the others are written then.
    """
    variables = play_variables(hosts, testbed)
    names = set(hosts.by_name())
    try:
        target.mkdir(archives.FOLDER_MODE, parents=True)
    except FileExistsError:
        raise Refused(f"{target} exists", "name a folder that doesn't") from None
    except OSError as error:
        raise Refused(
            f"{answers.shown(str(target))} can't be made: {error.strerror}", "name another folder"
        ) from None
    try:
        run = run_playbook(hosts, "backup", variables.to_ansible(), progress, is_partial=True)
    except BaseException:
        target.rmdir()
        raise
    count, problems = 0, [] if run.failure is None else [run.failure.message]
    for outcome in run.of(MODULE):
        component = outcome.subject
        if "archive" not in outcome.result or outcome.host not in names:
            continue
        if component not in COMPONENTS:
            continue
        (target / outcome.host).mkdir(archives.FOLDER_MODE, exist_ok=True)
        try:
            data = archives.decode(outcome.result["archive"])
            count += archives.unpack(data, target / outcome.host / component)
        except (archives.Hostile, FileExistsError) as error:
            problems.append(f"{outcome.host}'s records of {component} can't be used: {error}")
    for file in (deployment_file(testbed), testbed.state_file, log_file(testbed.name),
                 *(each.lock_file for each in software.ENVIRONMENTS)):  # fmt: skip
        shutil.copy(file, target / file.name)
        count += 1
    if problems:
        raise Failed("; ".join(problems[:4]), f"the others' records are in {target}")
    return count
