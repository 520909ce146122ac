"""Parts of BAR, shared by its configs."""

from ml_collections import ConfigDict

from arvision.configs.common import block


def tokenizer(
  *,
  bits: int,
  grid: tuple[int, int],
  patch: int,
  encoder: dict[str, int],
  decoder: dict[str, int],
  positions: tuple[int, int],
  image_channels: int = 3,
  hidden: int | None = None,
  align: dict[str, int] | None = None,
) -> ConfigDict:
  """The tokenizer block of BAR (arXiv 2602.09024): bits of patches.

  Args:
    bits: of a token.
    grid: (height, width) in patches.
    patch: side of a patch in pixels.
    encoder, decoder: their `width`, `depth` and `heads`.
    positions: (height, width) of the encoder's table of positions.
    image_channels: 3, or 1 for grey.
    hidden: of the encoder's MLPs; None: four times its width.
    align: `hidden`, `layer` and `weight` of the alignment with a frozen copy of
      the encoder; None: there is none.
  """

  def vit(kind, size, mlp, hidden, epsilon, **more):
    norm = block(type='layers.norm.AffineLayerNorm', epsilon=epsilon)
    return block(
      type=f'layers.patch_vit.{kind}',
      patch=patch,
      norm=norm,
      block=block(
        type='layers.blocks.Block',
        attention=block(
          type='layers.attention.Attention',
          kernel='auto',
          biases=('q', 'k', 'v', 'out'),
        ),
        mlp=block(type=f'layers.blocks.{mlp}', hidden=hidden),
        norm=norm,
      ),
      **size,
      **more,
    )

  config = block(
    type='tokenizers.aligned.AlignedPatches',
    grid=grid,
    patch=1,
    quant_kernel=0,
    encoder=vit(
      'PatchEncoder',
      encoder,
      'GELU',
      hidden or 4 * encoder['width'],
      1e-6,
      z_channels=bits,
      positions=positions,
    ),
    quantizer=block(
      type='quantizers.fsq.SymmetricFSQ', levels=(2,) * bits, ids=bits
    ),
    decoder=vit(
      'PatchDecoder',
      decoder,
      'ExactGELU',
      4 * decoder['width'],
      1e-5,
      grid=grid,
      channels=image_channels,
    ),
  )
  if align is not None:
    config.align = block(
      type='tokenizers.aligned.Alignment', encoder=config.encoder, **align
    )
  return config
