"""Editing: which tokens of an image to keep when a part of it is regenerated.

A sampler inserts known tokens and samples the others from the model's
conditionals. An AR sampler never attends to known tokens of later steps. A masked
sampler attends to all of them, but samples the tokens of a step independently. So
edits follow the product of these conditionals, not the distribution of the unknown
tokens given all known ones.
"""

import numpy as np

from arvision.layers.resize import matrix

Grids = tuple[tuple[int, int], ...]


def kept_tokens(keep: np.ndarray, grids: Grids, whole: int = 3) -> np.ndarray:
  """Tokens to keep, given the pixels to keep.

  On the last grid a token is kept if all its pixels are. On a smaller grid it is
  kept if the bilinearly resized mask of the last grid exceeds 1/2. Grids of at
  most `whole` tokens describe the image as a whole and are kept, unless no pixel
  is.

  Source: FoundationVision/VAR, demo_zero_shot_edit.ipynb, where the mask is given
    on the last grid.

  Args:
    keep: (b, H, W) bool.
    grids: (height, width) of every scale, small to large.
    whole: largest number of tokens of a grid that is always kept.

  Returns:
    (b, t) bool.

  Raises:
    ValueError: the last grid does not tile the image (1D tokenizers).
  """
  keep = np.asarray(keep, bool)
  height, width = grids[-1]
  if keep.shape[1] * width != keep.shape[2] * height or keep.shape[1] % height:
    raise ValueError(
      f'a token grid of {height} x {width} does not tile a picture of '
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
  # Exact on the last grid, however small it is.
  out[-1] = finest.reshape(len(keep), -1)
  return np.concatenate(out, 1)
