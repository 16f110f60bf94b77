"""OpenStack's own database tests, from the released packages, on any database URL."""
