"""Parts of ACDiT (arXiv 2412.07720), shared by its configs."""

from ml_collections import ConfigDict

from arvision.configs.common import block


def acdit(
  config: ConfigDict,
  *,
  grid: tuple[int, int],
  channels: int,
  classes: int | None,
  depth: int,
  width: int,
  heads: int,
  hidden: int,
  cell: tuple[int, int],
  steps: int = 25,
  guidance: float = 1.5,
) -> None:
  """The six parts of ACDiT: blocks of latents, each by diffusion.

  Args:
    config: to fill; it has the block of a KL tokenizer.
    grid: (height, width) of the latent.
    channels: of the latent.
    classes: of the condition, None for those of the data.
    depth: number of layers.
    width: d.
    heads: of the attention.
    hidden: inner width of the MLP.
    cell: (height, width) of a block in latents: those of the grid make it plain
      diffusion, (1, 1) next-token prediction.
    steps: of the solver, per block.
    guidance: scale.
  """
  config.layout = block(
    type='layouts.sequence.two_stream',
    layout=block(
      type='layouts.grid.cells', height=grid[0], width=grid[1], cell=cell
    ),
  )
  config.feed = block(
    type='feeds.noise.CleanPast',
    levels='uniform',
    path=block(type='process.path.Diffusion'),
  )
  norm = block(type='layers.norm.RMSNorm', epsilon=1e-6)
  config.backbone = block(
    type='backbones.decoder.Decoder',
    width=width,
    depth=depth,
    heads=heads,
    input=block(type='backbones.decoder.VectorInput', std=None, bias=False),
    block=block(
      type='layers.blocks.Block',
      attention=block(
        type='layers.attention.HalvesAttention',
        kernel='auto',
        logits=block(type='layers.attention.Normed', norm=norm),
        biases=('q', 'k', 'v', 'out'),
        std=None,
        out_std=None,
      ),
      mlp=block(
        type='layers.blocks.GELU', hidden=hidden, std=None, out_std=None
      ),
      norm=norm,
      adaln=block(type='layers.streams.NoisyAdaLN', std=0.0),
    ),
    last_norm=block(type='layers.norm.ModulatedNorm', norm=norm, std=0.0),
    rotary=block(type='layers.position.Halves'),
    remat='none',
    unroll=1,
  )
  config.head = block(type='heads.velocity.Noise', channels=channels, std=0.0)
  config.condition = block(
    type='layers.condition.ClassAndLevel',
    classes=classes,
    width=width,
    drop=0.1,
    std=0.02,
    level_std=0.02,
  )
  config.sampler = block(
    type='samplers.refine.Refine',
    guidance=block(type='process.guidance.Constant', scale=guidance),
    counts=block(type='process.counts.Falling', first=steps, last=steps),
    solver=block(type='process.solvers.DPMSolver'),
  )
  config.release = block(type='importers.acdit.Transformer')
