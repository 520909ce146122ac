"""Errors that a user can do something about."""


class ConfigError(ValueError):
  """A config that cannot be built; the text says which key to change."""


class DataError(ValueError):
  """Data that cannot be used; the text names the file and what to change."""
