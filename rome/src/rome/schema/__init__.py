"""Tables and indexes as the store keeps them, and how they are changed."""
