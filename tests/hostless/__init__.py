"""Tests that start processes, servers or virtual machines, and boot no emulated hosts.

They run beside those of `tests/real`: they have a home of their own, and never destroy all
testbeds.  Nothing here may measure real time: the processors are shared.
"""
