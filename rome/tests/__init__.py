"""Tests of ROME, on servers that they start themselves."""
