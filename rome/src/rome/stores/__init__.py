"""Key/value stores below ROME; base.py says what one must do."""
