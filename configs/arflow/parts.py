"""Parts of ARFlow (arXiv 2501.16085), shared by its configs."""

from ml_collections import ConfigDict

from arvision.configs.common import block


def arflow(
  config: ConfigDict,
  *,
  grid: tuple[int, int],
  channels: int,
  classes: int | None,
  depth: int,
  width: int,
  heads: int,
  patch: int = 2,
  images: int = 5,
  ratio: float = 4.0,
  guided: int = 0,
  spare: bool = True,
  steps: int = 250,
  guidance: float = 1.0,
) -> None:
  """The six parts of ARFlow.

  Args:
    config: to fill; it has data and a block of a KL tokenizer.
    grid: (height, width) of the latent.
    channels: of the latent.
    classes: of the condition, None for those of the data.
    depth, width, heads: of the transformer.
    patch: side of a token in latents.
    images: of a training sequence.
    ratio: inner width of the MLP over the width.
    guided: channels that guidance applies to; 0: all.
    spare: whether the head has as many outputs again that are not used.
    steps: of the solver.
    guidance: scale.
  """
  config.tokenizer.update(
    type='tokenizers.images.Images', patch=patch, images=images
  )
  config.data.companions = images - 1
  height, across = (side // patch for side in grid)
  image = block(
    type='layouts.grid.cells',
    height=height,
    width=across,
    cell=(height, across),
  )
  config.layout = block(
    type='layouts.sequence.repeated', layout=image, count=images
  )
  config.feed = block(type='feeds.noise.Falling', levels='uniform')
  bare = block(type='layers.norm.RMSNorm', epsilon=1e-6, use_scale=False)
  plain = block(type='layers.norm.LayerNorm', epsilon=1e-6)
  config.backbone = block(
    type='backbones.decoder.Decoder',
    width=width,
    depth=depth,
    heads=heads,
    input=block(type='backbones.decoder.VectorInput', std=None),
    block=block(
      type='layers.blocks.Block',
      attention=block(
        type='layers.retention.GatedRetention', norm=bare, std=None
      ),
      mlp=block(
        type='layers.blocks.GELU',
        hidden=int(width * ratio),
        std=None,
        out_std=None,
      ),
      norm=plain,
      adaln=block(type='layers.blocks.AdaLN', std=0.0),
    ),
    last_norm=block(type='layers.norm.ModulatedNorm', norm=plain, std=0.0),
    position=block(type='layers.waves.FixedWaves'),
    remat='none',
    unroll=1,
  )
  parts = channels * patch**2
  config.head = block(
    type='heads.velocity.Velocity',
    channels=parts,
    spare=parts if spare else 0,
    std=0.0,
  )
  config.release = block(type='importers.arflow.Transformer', patch=patch)
  config.condition = block(
    type='layers.condition.ClassAndTime',
    classes=classes,
    width=width,
    drop=0.1,
    level_std=0.02,
  )
  config.sampler = block(
    type='samplers.refine.Sequence',
    layout=image,
    guidance=block(type='process.guidance.Constant', scale=guidance),
    guided_parts=guided * patch**2,
    counts=block(type='process.counts.ConstantSteps', count=steps),
    solver=block(type='process.flow.EulerMaruyama', lowest=0.04),
  )
