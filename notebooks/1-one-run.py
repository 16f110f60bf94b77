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
# # 1. One run
#
# A run is one experiment: a cloud of some sites, a load on it, and what probes saw meanwhile. This
# notebook shows what is in one: what was run, what became of the VMs, and what they cost.
#
# The cell below says where the results are: a run's folder, or a folder of runs. Change it and run
# all cells again.

# %% tags=["parameters"]
results = "../results/reference/sites-8"

# %%
# %matplotlib inline
from pathlib import Path

import pandas as pd

from discovery_xp.analysis import facts, plots, run_tables, tables
from discovery_xp.analysis.measurements import loads, read_runs

# %% [markdown]
# `read_runs` finds the runs and opens them; a table is read when it is first asked for. Of several
# runs the newest one that had a load is taken.
#
# Read the facts first. *Of the machine busy* near 100 % means that times are the machine's more
# than the cloud's; counts and bytes are not touched by that.

# %%
run = loads(read_runs([Path(results)]))[-1]
tables.Table("facts", run.run.name, pd.DataFrame(facts.facts(run), columns=["what", "value"]))

# %% [markdown]
# ## What became of the VMs
#
# All are asked for at once, so each waits for the others. Dotted is when they were asked for. The
# slope is the cloud's rate; where it bends, something is used up.

# %%
shown = {table.name: table for table in run_tables.run_tables(run)}
shown.get("vms", "no VMs were asked for")

# %%
plots.timeline([run])

# %% [markdown]
# Where they landed: a host builds its VMs one after the other, so an uneven spread makes a run
# longer.

# %%
plots.vms_by_site(run)

# %% [markdown]
# ## Calls of Nova's database API
#
# What the experiments of 2016 called the response time. The mean counts relationships that were
# loaded later with the calls they belong to; percentiles are of the calls alone.

# %%
shown.get("calls", "not measured")

# %%
plots.response_times([run])

# %% [markdown]
# ## What a VM costs
#
# Statements and round trips per VM are a matter of OpenStack and of the back end, not of the
# machine.

# %%
shown.get("database", "not measured")

# %%
plots.traffic_by_service(run)

# %%
plots.cpu_by_service(run)

# %% [markdown]
# ## Every observation
#
# Each stored table is a frame, a row for each thing that was observed: `run.vms`, `run.calls`,
# `run.requests`, `run.statements`, `run.traffic`, `run.messages`, `run.usage`, ... Units are in the
# names of the columns; `docs/results.md` describes them. For instance, the slowest calls:

# %%
columns = ["function", "service", "site", "duration_ms", "error"]
run.calls.nlargest(5, "duration_ms")[columns]
