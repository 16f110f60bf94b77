"""YAML to frozen, typed values, strictly: topologies, scenarios, platforms."""
