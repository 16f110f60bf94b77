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
# # 5. A figure of your own
#
# Three things can be added: a plot, a number that runs are compared by, and a claim about it.

# %% tags=["parameters"]
results = "../results/reference/sites-2"

# %%
# %matplotlib inline
from pathlib import Path

import numpy as np

from discovery_xp.analysis import plots
from discovery_xp.analysis.drawing import LIGHT, drawing, plain
from discovery_xp.analysis.figures import FIGURES, Figure
from discovery_xp.analysis.measurements import label, loads, read_runs

runs = [run for run in loads(read_runs([Path(results)])) if len(run.vms)]

# %% [markdown]
# ## A plot
#
# A plot is a function of runs that returns a figure. `blank` makes one with the house's fonts and
# colours, `plain` makes a stranger's name safe to draw, and `drawing` keeps settings of other
# people's `matplotlibrc` out. This one draws how long boots took as a distribution: the further
# right, the slower; the steeper, the more alike.


# %%
@drawing
def boots(runs, theme=LIGHT):
    """Draw the distribution of boots, a line for each of the first eight runs."""
    figure, axes = plots.blank(theme, 7.0, 3.4)
    for run, colour in zip(runs, theme.series, strict=False):
        seconds = np.sort(run.vms.loc[run.vms["status"] == "ACTIVE", "boot_duration_s"])
        share = np.arange(1, len(seconds) + 1) / max(len(seconds), 1)
        axes.step(seconds, share, where="post", color=colour, label=plain(label(run.record)))
    axes.set_xlabel("boot, s")
    axes.set_ylabel("share of VMs")
    axes.legend(fontsize=7)
    return figure


boots(runs[:8])

# %% [markdown]
# In the toolkit it would stand in `analysis/plots.py`, and a line in `analysis/pictures.py` puts
# it into each report, with a caption that says what is to be seen.
#
# ## A number
#
# Runs are compared by the figures of `analysis/figures.py`, one line for each. `key` is a column of
# `summary`; `kind` says whether it depends on how fast the machine is.

# %%
for figure in FIGURES:
    print(f"{figure.kind:6} {figure.key:20} {figure.words}")

# %% [markdown]
# A further one, and what it is in these runs. A host builds its VMs one after the other, so the
# fullest one decides when the last VM is ACTIVE.

# %%
fullest = Figure("fullest_host_vms", "VMs on the fullest host", "count")
[(label(run.record), fullest.of(run)) for run in runs[:8]]

# %% [markdown]
# ## A claim
#
# What you found is worth most when somebody else can check it. A claim is a few lines of YAML
# beside the runs, and `discovery-xp artifact --check` says whether it holds (`docs/artifacts.md`):
#
# ```yaml
# claims:
#   - sentence: A VM on ROME takes less than half of the round trips that it takes on MariaDB.
#     figure: round_trips_per_vm
#     of: {backend: rome, latency: 50ms}
#     to: {backend: mysql, latency: 50ms}
#     at_most: 0.5
#     tolerance: 10%
# ```
