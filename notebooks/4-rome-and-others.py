# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 4. ROME against the others
#
# Can a key/value store take the place of the SQL database? ROME keeps OpenStack's databases in
# Redis, without a change to OpenStack. This notebook puts each back end beside MariaDB, at the
# largest latency that there are runs of: what differs in what was run first, then ratios with
# their intervals.

# %% tags=["parameters"]
results = "../results/reference/sites-2"

# %%
# %matplotlib inline
from pathlib import Path

from IPython.display import display

from discovery_xp.analysis import comparison, comparison_tables, plots
from discovery_xp.analysis.measurements import loads, read_runs

runs = [run for run in loads(read_runs([Path(results)])) if not run.record.is_partial]
latency_ms = max((run.record.latency_ms or 0 for run in runs), default=0)
furthest = [run for run in runs if (run.record.latency_ms or 0) == latency_ms]
backends = sorted(
    {run.record.backend for run in furthest}, key=lambda name: (name != "mysql", name)
)
f"{len(furthest)} runs at {latency_ms:g} ms, of {', '.join(backends)}"

# %% [markdown]
# A *side* is the runs of one configuration, which are averaged. `side` refuses runs that aren't
# repeats of each other, and says in what they differ.

# %%
sides = [
    comparison.side(name, [run.run for run in furthest if run.record.backend == name])
    for name in backends
]
compared = [comparison.compare(sides[0], other) for other in sides[1:]]

# %% [markdown]
# ## What differs, and by how much
#
# A ratio below 1 is for the second side. An interval that holds 1 says that nothing is known yet,
# and *more runs* how many would tell. Notes under the table say what the intervals are of.

# %%
for each in compared:
    display(*comparison_tables.tables_of(each))
if not compared:
    print("one back end: there is nothing to compare")

# %% [markdown]
# ## Every point
#
# Means hide how runs scatter. Each point is a run, or of a single run a VM.

# %%
for each in compared:
    display(comparison_tables.figure_of(each))

# %% [markdown]
# ## Where it comes from
#
# ROME answers a statement in fewer round trips, so a call of the database API waits less where the
# database is far. Where everything is near, the processor decides.

# %%
plots.response_times(furthest)

# %%
plots.cpu_shares(furthest)
