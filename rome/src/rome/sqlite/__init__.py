"""What SQLite, which evaluates all SQL, is given and refused."""
