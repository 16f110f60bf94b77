"""Tests of a whole ordinary machine, a virtual one: they take a processor for ten minutes."""
