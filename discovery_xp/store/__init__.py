"""Runs of the bench on disk: sole owner of the paths under results/ and of their format.

A run is a folder, `ROOT/EXPERIMENT/UTC-PLAN/`; `docs/results.md` describes what is in it.
Whatever is written is there whole or not at all, so that a run that is killed keeps what
it had: files are replaced in one step, and rows that are appended become files of their
own at once, which are merged into the table's file when the run ends.

Whatever is read may be a stranger's: `files` opens regular files of bounded size only,
`records`, `links` and `tables` check type, length and range of every value, `pages` how much a
table unpacks to.  One that doesn't pass is refused in a line; nothing of it is ever executed.
"""

from discovery_xp.store.files import damaged, replace_file
from discovery_xp.store.finding import find_runs, is_run_name, open_run, runs_under
from discovery_xp.store.links import Links, Pair
from discovery_xp.store.parts import (
    Arm,
    Drawn,
    Harness,
    InCampaign,
    Load,
    Machine,
    MachineState,
    Merging,
    Recipe,
    ThrottledShare,
    Validity,
    Vms,
    Window,
)
from discovery_xp.store.records import FORMAT, VERIFY, RunRecord, record_from_json
from discovery_xp.store.runs import (
    FILES,
    FOLDERS,
    ROOT,
    Run,
    Taken,
    Unfit,
    new_run,
    require_writable,
)
from discovery_xp.store.tables import ACTIVITIES, ALWAYS, PROBES, TABLES, Column, Rows, schema

__all__ = [
    "ACTIVITIES", "ALWAYS", "FILES", "FOLDERS", "FORMAT", "PROBES", "ROOT", "TABLES", "VERIFY",
    "Arm", "Column", "Drawn", "Harness", "InCampaign", "Links", "Load", "Machine", "MachineState",
    "Merging", "Pair", "Recipe", "Rows", "Run", "RunRecord", "Taken", "ThrottledShare", "Unfit",
    "Validity", "Vms", "Window", "damaged", "find_runs", "is_run_name", "new_run", "open_run",
    "record_from_json", "replace_file", "require_writable", "runs_under", "schema",
]  # fmt: skip
