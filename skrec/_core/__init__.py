"""Kernels that take and return tensors, shared by all estimators of skrec.

No kernel knows an estimator, prints, chooses a device or seeds a generator.
"""
