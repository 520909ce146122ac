"""Errors that a user can fix."""


class ConfigError(ValueError):
  """An invalid config or flag; the message names what to change."""


class DataError(ValueError):
  """Unusable data; the message names the file and what to change."""
