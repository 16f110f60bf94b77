"""What both ends of ssh share: the standard library alone, so that a bare host can import it.

Two subpackages ask for more, and say so: `cloud` for OpenStack's Python environment, `load` for
Rally's.  Imports inside the package are relative: it has other names on hosts
(docs/on-the-hosts.md).
"""
