"""Which tokens of a picture stay when a part of it is drawn anew.

A sampler puts known tokens in as they come and draws the others from the model's
conditionals. In an order of its own it never looks ahead at known tokens; one that
fills masked tokens sees all of them, but draws the tokens of a step apart. So edits follow
the product of these conditionals, not the distribution of the rest given all known
tokens.
"""

import numpy as np

from arvision.layers.resize import matrix

Grids = tuple[tuple[int, int], ...]


def kept_tokens(keep: np.ndarray, grids: Grids, whole: int = 3) -> np.ndarray:
  """Tokens that stay, given the pixels that stay.

  On the last grid a token stays if all its pixels do. On every other it stays
  if the bilinear mean of these does by more than a half, and grids of no more
  than `whole` tokens stay whole, as they say what the picture is like. Where no
  pixel stays, no token does.

  Source: FoundationVision/VAR, demo_zero_shot_edit.ipynb, whose mask is given on
    the last grid.

  Args:
    keep: (b, H, W) bool.
    grids: (height, width) of every scale, small to large.
    whole: see above.

  Returns:
    (b, t) bool.

  Raises:
    ValueError: grids that do not lie over the picture, as those of 1D tokenizers.
  """
  keep = np.asarray(keep, bool)
  height, width = grids[-1]
  if keep.shape[1] * width != keep.shape[2] * height or keep.shape[1] % height:
    raise ValueError(
      f'tokens on a grid of {height} x {width} do not lie over a picture of '
      f'{keep.shape[1]} x {keep.shape[2]}, so no part of it can be kept'
    )
  patch = keep.shape[1] // height
  finest = keep.reshape(-1, height, patch, width, patch).all((2, 4))
  some = np.asarray(keep.any((1, 2)))
  out = []
  for h, w in grids:
    rows, columns = (
      matrix('bilinear', n, of) for n, of in ((h, height), (w, width))
    )
    share = np.einsum('hy,byx,wx->bhw', rows, np.float32(finest), columns)
    here = share.reshape(len(keep), -1) > 0.5
    out.append(here | (some[:, None] & (h * w <= whole)))
  # The last grid may be small, and is never more than what was asked for.
  out[-1] = finest.reshape(len(keep), -1)
  return np.concatenate(out, 1)
