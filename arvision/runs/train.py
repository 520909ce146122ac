"""Training that measures by the evaluators of a config on its way."""

import os
from typing import Any

from ml_collections import ConfigDict

from arvision.runs.measure import InTraining
from arvision.training import loop


def train(
  config: ConfigDict, workdir: str | os.PathLike, **options: Any
) -> loop.Result:
  """Trains what a config describes; arguments are those of `loop.train`."""
  return loop.train(config, workdir, make_in_training=InTraining, **options)
