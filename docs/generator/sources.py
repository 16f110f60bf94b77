"""What fills each block: its name, and the function that makes it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from discovery_xp.store.tables import TABLES
from docs.generator import back_ends, benchmarks, code, reference, rome, verification
from docs.generator.blocks import Source

SOURCES: Mapping[str, Source] = {
    "reference-eight-sites": reference.eight_sites,
    "reference-eight-sites-whole": reference.eight_sites_whole,
    "reference-eight-sites-provenance": partial(reference.provenance, "sites-8"),
    "reference-eight-sites-scaled": reference.eight_sites_scaled,
    "reference-eight-sites-scaled-short": partial(reference.eight_sites_scaled, True),
    "reference-eight-sites-scaled-provenance": partial(reference.provenance, reference.SCALED),
    "reference-two-sites": reference.two_sites,
    "reference-two-sites-whole": reference.two_sites_whole,
    "reference-two-sites-by-latency": reference.two_sites_by_latency,
    "reference-two-sites-provenance": partial(reference.provenance, "sites-2"),
    "reference-repeats": reference.repeats,
    "reference-load": reference.load_cost,
    "verify-outcomes": verification.outcomes,
    "verify-differences": verification.differences,
    "verify-unstable": verification.unstable,
    "verify-exclusions": verification.exclusions,
    "verify-skips": verification.skips,
    "verify-provenance": verification.provenance,
    "deploy": benchmarks.deploy,
    "deploy-progress": benchmarks.deploy_progress,
    "tests": benchmarks.tests,
    "deploy-stages": benchmarks.deploy_stages,
    "deploy-services": benchmarks.deploy_services,
    "deploy-provenance": partial(benchmarks.provenance, "deploy"),
    "hosts": benchmarks.hosts,
    "links": benchmarks.links,
    "hosts-provenance": partial(benchmarks.provenance, "hosts"),
    "hundred-sites": benchmarks.hundred_sites,
    "hundred-sites-provenance": partial(benchmarks.provenance, "hundred-sites"),
    "probes": benchmarks.probes,
    "probes-provenance": partial(benchmarks.provenance, "probes"),
    "probes-series": benchmarks.probes_series,
    "probes-series-provenance": partial(benchmarks.provenance, "probes-series"),
    "series-metrics": code.series_metrics,
    "probes-bench": benchmarks.probes_bench,
    "probes-bench-provenance": partial(benchmarks.provenance, "probes-bench"),
    "time-scale": benchmarks.time_scale,
    "time-scale-provenance": partial(benchmarks.provenance, "time-scale"),
    "back-ends-arms": back_ends.arms,
    "back-ends": back_ends.figures,
    "placement": benchmarks.placement,
    "placement-provenance": partial(benchmarks.provenance, "placement"),
    "rome-operations": rome.operations,
    "rome-costs": rome.costs,
    "rome-schema": rome.schema_costs,
    "rome-suites": rome.suites,
    "claim-figures": code.claim_figures,
    "listeners": code.listeners,
    "commands": code.commands,
    "command-help": code.command_help,
    "topologies": code.topologies,
    "modules": partial(code.modules, "discovery_xp"),
    "modules-rome": partial(code.modules, "rome/src/rome"),
    **{f"columns-{name}": partial(code.columns, name) for name in TABLES},
}
