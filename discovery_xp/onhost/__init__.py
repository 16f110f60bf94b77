"""What both ends of ssh share: the standard library alone, so that a bare host can import it."""
