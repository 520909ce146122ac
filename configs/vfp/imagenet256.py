"""VFP on ImageNet 256 × 256, with LlamaGen's transformers: B, L, XL.

    arvision encode --config=configs/llamagen/tokenizer.py \\
      --workdir=runs/llamagen-tokenizer --views=ten_crop --output=DIR
    arvision train --config=configs/vfp/imagenet256.py:B --workdir=runs/vfp-b

The codes of another image of the class come before those of the image, and both are
predicted: the model samples a full view before the image. `B_uniform` has prompts of
random codes of the codebook (Universal-VF).

Deviations: the number of codes of a prompt is not known here; that of an image, 16 × 16,
is supposed, and `--config.tokenizer.rows=4 --config.layout.height=20` has a quarter of
them. Prompts have 2D rotations as rows above the image. Recipe and guidance are those
of llamagen/imagenet256.

Source: arXiv 2502.16965.
"""

from arvision.configs import common
from arvision.configs.llamagen import imagenet256 as llamagen
from arvision.configs.llamagen import tokenizer
from arvision.configs.vfp import parts

SIZES = {
  **{size: llamagen.SIZES[size] for size in ('B', 'L', 'XL')},
  'B_uniform': dict(llamagen.SIZES['B'], prompt='uniform'),
}


def get_config(arg: str = 'B'):
  size = common.size(arg or 'B', SIZES)
  config = common.generator(tokenizer.get_config(), 'runs/llamagen-tokenizer')
  parts.vfp(config, rows=16, classes=1000, **size)
  config.backbone.dtype = 'bfloat16'
  config.backbone.remat = 'dots'
  llamagen.recipe(config)
  return common.locked(config)
