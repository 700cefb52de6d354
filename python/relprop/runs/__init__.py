"""What long runs over datasets share: they can be stopped at any moment, and go on later.

Whoever runs keeps what it has found so far, whatever that is, in checkpoints beside its results.
"""
