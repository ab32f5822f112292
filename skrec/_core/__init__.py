"""Tensors in, tensors out: the kernels that every estimator of skrec shares.

Nothing in here knows an estimator, prints, chooses a device or seeds a generator.
"""
