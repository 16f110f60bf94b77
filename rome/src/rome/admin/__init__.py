"""What the command `rome` does with a whole database."""
