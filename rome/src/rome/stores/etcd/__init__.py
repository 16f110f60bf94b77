"""A store in etcd, version 3.4 or newer."""
