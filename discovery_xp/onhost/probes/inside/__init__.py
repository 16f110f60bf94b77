"""Probes inside OpenStack's services: what they measure goes to a file for each process.

They come in by PYTHONPATH and patch modules as those get imported, so that no line of a
service is changed and a process that never imports a module pays nothing for its probe.
"""
