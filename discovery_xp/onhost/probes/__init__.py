"""The bench's probes on a host: what runs inside services, and what is read from outside."""
