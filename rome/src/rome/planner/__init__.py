"""From an analysed statement to the steps of one read of the store."""
