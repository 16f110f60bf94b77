"""Samples of a host during a window: one small process, from the window's start to its stop.

`control` starts and stops it, `sampler` is what runs; the others read what is sampled.
"""
