"""Plugins that Ansible itself loads, by the paths that discovery_xp/__init__.py sets."""
