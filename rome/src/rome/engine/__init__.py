"""One transaction: its statements, what it has read and written, and its commit."""
