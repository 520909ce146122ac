"""Training with the evaluators of a config."""

import os
from typing import Any

from ml_collections import ConfigDict

from arvision.runs.measure import InTraining
from arvision.training import loop


def train(
  config: ConfigDict, workdir: str | os.PathLike, **options: Any
) -> loop.Result:
  """Trains a config; see `loop.train` for the arguments."""
  return loop.train(config, workdir, make_in_training=InTraining, **options)
