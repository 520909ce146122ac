"""The Axial Transformer on ImageNet 64 × 64.

    arvision train --config=configs/axial/imagenet64.py --workdir=runs/axial-64

A token is a pixel of one of three channels, with 256 levels, and a channel is
predicted given those before it.

Source: arXiv 1912.12180; no official code was found. Deviations: those of
axial/imagenet32.py.
"""

from arvision.configs.axial import imagenet32


def get_config(arg: str = ''):
  del arg
  return imagenet32.recipe(64)
