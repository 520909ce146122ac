"""Autoregressive image models in JAX. Nothing is imported here."""
