"""Images while they are sampled: scale by scale, or token by token."""

from typing import Any

import numpy as np

from arvision.errors import ConfigError
from arvision.runs.trained import TrainedRun

_UNKNOWN = 0.0  # grey, for pixels of tokens to come


def previews(run: TrainedRun, tokens: Any) -> list[np.ndarray]:
  """The images that a run has sampled, after every step of its layout.

  Tokens of several scales are decoded as far as they go. Of a single grid the
  finished images are shown, grey where a token is still to come. A model
  that fills masked tokens has one step.

  Args:
    run: a generator.
    tokens: (b, t) int32 or (b, t, c), see `TrainedRun.sample_fn`.

  Returns:
    images (b, H, W, C) float32 in [-1, 1] of every step.

  Raises:
    ConfigError: the run is a tokenizer, or its tokens have no places in the
      image.
  """
  if run.model is None:
    raise ConfigError('the run is a tokenizer; wanted a generator')
  tokens, decode = np.asarray(tokens), run.as_sampled.decode
  grids = run.as_sampled.tokenizer.spec.grids
  if len(grids) > 1:
    ends = np.cumsum([h * w for h, w in grids])
    return [decode(tokens[:, :end]) for end in ends]
  images = decode(tokens)
  (height, width), (rows, columns) = images.shape[1:3], grids[0]
  if height % rows or width % columns or height * columns != width * rows:
    raise ConfigError(
      f'a token grid of {rows} x {columns} does not tile a picture of '
      f'{height} x {width}, so tokens have no place in it'
    )
  layout = run.sampler().layout or run.model.layout
  step = layout.entity_of_token.reshape(rows, columns)
  step = step.repeat(height // rows, 0).repeat(width // columns, 1)
  return [
    np.where((step <= s)[..., None], images, np.float32(_UNKNOWN))
    for s in range(layout.steps)
  ]
