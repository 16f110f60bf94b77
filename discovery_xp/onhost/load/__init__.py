"""The load as a load host makes it: needs aiohttp, which Rally's Python environment has.

One process, one event loop, one token for each user, connections that are kept, and one list
of VMs for each poll, at the regions in turn.  All that happens is written at once to a file of
JSON lines (`wire.load`): a load that is killed keeps what it had.
"""
