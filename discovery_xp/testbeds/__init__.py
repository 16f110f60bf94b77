"""A testbed and its hosts: state, commands over ssh, links that are imposed and measured."""
