"""Factorizations whose items have a prior that reads their texts."""
