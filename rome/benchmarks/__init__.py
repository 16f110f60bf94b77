"""ROME beside MariaDB with PyMySQL, on one machine: see README.md here."""
