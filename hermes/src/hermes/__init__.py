"""Hermes: an oslo.messaging driver on NATS."""
