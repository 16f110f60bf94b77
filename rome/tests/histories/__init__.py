"""Histories of concurrent clients under faults, and the checker that judges them.

`model` has what a history is, `tables` and `workloads` what clients do, `clients` runs them in
processes, threads and connections, `faults` is what happens to the servers meanwhile, `versions`,
`graph` and `checker` judge, `run` puts one run together, `report` writes the tables, and
`python -m tests.histories` runs the matrix.
"""
