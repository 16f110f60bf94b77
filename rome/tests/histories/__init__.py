"""Histories of concurrent clients under faults, and the checker that judges them.

`model` has what a history is, `tables` and `workloads` what clients do, `clients` runs them in
processes, threads and connections, `faults` is what happens to the servers meanwhile
(`namespaces`: in a network that can be cut), `run` puts one run together.

`evidence`, `versions`, `graph` and `checker` judge; `by_hand` and `mutations` are for the tests
of that: histories made by hand, and defects put into ROME.

`report` writes the tables, and `python -m tests.histories` runs the matrix of faults.
"""
