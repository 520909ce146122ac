"""Autoregressive image models in JAX. Nothing is imported here."""

__version__ = '0.1.0'
