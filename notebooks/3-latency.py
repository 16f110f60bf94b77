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
# # 3. What latency does
#
# The same cloud with its sites further and further apart. A boot asks the database hundreds of
# times, one after the other: what latency adds should be about the round trips times their length.
# It is less, as services work side by side, and more where something waits for a lock meanwhile.

# %% tags=["parameters"]
results = "../results/reference/sites-2"

# %%
# %matplotlib inline
from pathlib import Path

from discovery_xp.analysis import plots
from discovery_xp.analysis.measurements import loads, read_runs, summary

runs = [run for run in loads(read_runs([Path(results)])) if run.record.latency_ms is not None]
len(runs)

# %% [markdown]
# ## Was it imposed?
#
# Latency is measured before and after the load. Look at this before anything else: a round trip
# that isn't what was asked for explains every figure below.

# %%
observed = [
    run.round_trips.assign(run=run.number, error_ms=lambda f: f["observed_ms"] - f["requested_ms"])
    for run in runs
]
columns = ["run", "phase", "source", "target", "requested_ms", "observed_ms", "error_ms"]
observed[-1][columns].head(8) if observed else "no run with links of one latency"

# %% [markdown]
# ## What grows with it
#
# `summary` has a row for each run, with all its figures. Means of repeats, by back end and one-way
# delay. Calls of the database API take longer the further the database is; round trips per VM stay,
# as they are the cloud's. Boots take longer only where the machine has room: where its processors
# are full, as in the reference runs, they decide, and latency hides behind them
# (`docs/scaled-time.md` says what helps).

# %%
figures = ["boot_median_s", "boot_p90_s", "call_mean_ms", "round_trips_per_vm", "cpu_ms_per_vm"]
frame = summary(runs)
means = frame.groupby(["backend", "latency_ms"])[figures].mean() if len(frame) else frame
means.round(1)

# %% [markdown]
# Beside the smallest latency that there is: a ratio of 1 is no change.

# %%
ratios = means.groupby(level="backend").transform(lambda column: column / column.iloc[0])
ratios.round(2)

# %% [markdown]
# ## As curves
#
# A colour for each back end, a line for each latency and repeat. Where repeats lie further apart
# than latencies do, one run of each wouldn't tell much.

# %%
plots.timeline(runs)

# %%
plots.response_times(runs)
