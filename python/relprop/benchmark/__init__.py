"""What ``relprop bench`` measures: relprop beside torch's gradient and the other libraries.

Its modules but :mod:`~relprop.benchmark.records` need torch.
"""
