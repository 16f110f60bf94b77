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
# # 2. The published tables, with our runs beside
#
# The experiments of 2016 published six tables (sources at the end). Each stands here with the runs
# that fit a cell of it. None of the published values is a target: the machines were others, and so
# was OpenStack.
#
# Runs that repeat each other share a row: their mean, with a bootstrap interval. Partial runs have
# rows of their own and say so. `docs/analysis.md` says how each figure is computed.

# %% tags=["parameters"]
results = "../results/reference/sites-8"

# %%
# %matplotlib inline
from pathlib import Path

from discovery_xp.analysis import paper, paper_tables, plots, run_tables
from discovery_xp.analysis.measurements import loads, read_runs

runs = loads(read_runs([Path(results)]))
run_tables.overview(runs)

# %% [markdown]
# ## One site: response times, creation, data
#
# An *API request* is a call of Nova's database API, not a REST request.

# %%
paper_tables.table_1(runs, whole=True)

# %%
paper_tables.table_2(runs, whole=True)

# %%
paper_tables.table_5(runs, whole=True)

# %% [markdown]
# ## Several sites: time to create the VMs
#
# It isn't known whether the published 10 and 50 ms are one-way or round trips; they are compared as
# one-way here.

# %%
paper_tables.table_3(runs, whole=True)

# %%
paper_tables.table_4(runs, whole=True)

# %%
plots.creation_times(runs)

# %% [markdown]
# Latencies that nobody published:

# %%
paper_tables.other_latencies(runs)

# %% [markdown]
# ## With and without host aggregates

# %%
paper_tables.table_6(runs, whole=True)

# %% [markdown]
# ## What may be compared across machines
#
# Wall time depends on the machine. CPU, statements, round trips, bytes and messages per VM depend
# on it much less.

# %%
run_tables.costs(runs)

# %%
run_tables.repeats(runs)

# %% [markdown]
# ## Caveats of the published values

# %%
for caveat in paper.CAVEATS:
    print("-", caveat)
for source in paper.SOURCES:
    print(f"[{source.key}] {source.citation}")
