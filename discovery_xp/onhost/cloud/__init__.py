"""The new cloud, asked from one of its hosts: needs OpenStack's Python environment there."""
