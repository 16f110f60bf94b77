"""A model of the control plane: what a load takes on a cloud that nobody has run yet.

Pure: it opens no socket, and reads no file but those that it is given.
"""
