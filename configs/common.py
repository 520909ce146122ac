"""Fragments that several configs share, and `shrink`.

Configs import ml_collections and one another alone, so that they load on a
launcher without JAX.
"""

from ml_collections import ConfigDict


def block(**fields) -> ConfigDict:
  """A part: `type` and its fields."""
  return ConfigDict(fields)


def size(arg: str, sizes: dict):
  """The row of a published size.

  Raises:
    ValueError: no such size, with those there are.
  """
  if arg not in sizes:
    raise ValueError(
      f"no size '{arg}' in this config; there are: {', '.join(sizes)}"
    )
  return sizes[arg]


def grids(scales) -> tuple[tuple[int, int], ...]:
  """Sides or (height, width) pairs -> pairs."""
  return tuple((s, s) if isinstance(s, int) else tuple(s) for s in scales)


def new(seed: int = 0) -> ConfigDict:
  """The blocks that every experiment has, with their defaults."""
  config = ConfigDict()
  config.seed = seed
  config.ema = (0.999,)
  # Decays grow with the steps up to these, so that short runs have averages too.
  config.ema_warmup = True
  config.mesh = block(slice=1, data=-1, fsdp=1, tensor=1, sequence=1)
  config.checkpoint = block(every=block(fraction=0.1), keep=2, best='')
  config.log = block(every=block(steps=50))
  config.pictures = block(every=block(fraction=0.1), count=32)
  config.evals = block(
    every=block(fraction=0.1),
    reconstruction=block(type='evals.reconstruction.Reconstruction'),
  )
  return config


def generator(tokenizer: ConfigDict, workdir: str) -> ConfigDict:
  """The start of a generator's config: data and tokenizer of another one.

  Args:
    tokenizer: the config that the tokenizer was trained by.
    workdir: where it was trained; `--config.tokenizer_workdir` changes it.
  """
  config = new(tokenizer.seed)
  tokenizer = tokenizer.copy_and_resolve_references().unlock()
  config.data = tokenizer.data
  config.tokenizer = tokenizer.tokenizer
  config.tokenizer_workdir = workdir
  config.evals.generation = block(type='evals.generation.Generation')
  config.task = block(type='tasks.autoregressive.Autoregressive', draws=40)
  return config


def imagenet(size: int, resize: int | None, batch_size: int) -> ConfigDict:
  """ImageNet-1k prepared by TFDS as ArrayRecord shards.

  Args:
    size: side of the crop.
    resize: short side before it; None: as the crop asks.
    batch_size: global.
  """
  return block(
    type='data.pipeline.Images',
    source=block(
      type='data.tfds.Tfds',
      builder='imagenet2012',
      held_out_split='validation',
      data_dir='',
    ),
    size=(size, size),
    channels=3,
    resize=resize or 'fit',
    crop='random',
    flip=False,
    batch_size=batch_size,
    threads=16,
  )


def autoencoder(
  *,
  image_channels: int = 3,
  ch: int = 128,
  ch_mult: tuple[int, ...] = (1, 1, 2, 2, 4),
  res_blocks: int = 2,
  z_channels: int = 256,
  patch: int = 1,
  groups: int = 32,
  attention: bool = True,
) -> dict[str, ConfigDict]:
  """Encoder and decoder of an LDM autoencoder, for a tokenizer block."""
  shared = {
    'ch': ch,
    'ch_mult': ch_mult,
    'res_blocks': res_blocks,
    'patch': patch,
    'groups': groups,
    'attention': attention,
  }
  return {
    'encoder': block(
      type='layers.conv.Encoder', z_channels=z_channels, **shared
    ),
    'decoder': block(
      type='layers.conv.Decoder', channels=image_channels, **shared
    ),
  }


def cosine(final: float, **warmup) -> ConfigDict:
  """A linear warm-up, then a cosine.

  Args:
    final: rate at the end, as a share of the largest.
    **warmup: its duration, `epochs=1`.
  """
  return block(
    type='training.schedule.WarmupCosine', warmup=block(**warmup), final=final
  )


def adamw(
  learning_rate: float,
  schedule: ConfigDict,
  weight_decay: float = 0.05,
  b2: float = 0.95,
  clip: float = 2.0,
  exempt: tuple[str, ...] = (),
) -> ConfigDict:
  """AdamW with decay on matrices only."""
  return block(
    type='training.optim.Optimizer',
    kind='adamw',
    learning_rate=learning_rate,
    b1=0.9,
    b2=b2,
    eps=1e-8,
    weight_decay=weight_decay,
    decay=block(type='training.optim.DecayRule', min_ndim=2, exempt=exempt),
    clip=clip,
    accumulate=1,
    schedule=schedule,
  )


def locked(config: ConfigDict) -> ConfigDict:
  config.lock()
  return config


def shrink(config: ConfigDict) -> ConfigDict:
  """The same parts and options at a size that a test can afford.

  Depth 2, width 32, at most 64 slots, a vocabulary of at most 64, float32; images
  shrink with the token grid. Works on tokenizer and on generator configs.
  """
  small = config.copy_and_resolve_references()
  small.unlock()
  grid = _shrink_grids(small)
  if 'backbone' in small:
    small.backbone.update(width=32, depth=2, heads=2, dtype='float32')
    small.backbone.mlp.hidden = 64
    if 'heads' in small.get('release', {}):
      small.release.heads = 2
    if 'width' in small.head:
      small.head.width = 32
    if 'dtype' in small.head:
      small.head.dtype = 'float32'
    _shrink_sampler(small.sampler)
    if 'second_depth' in small.backbone:
      small.backbone.second_depth = 1
    small.condition.width = 32
    _shrink_condition(small)
    _shrink_head(small.head)
    if 'vocab_size' in small.backbone.input:
      small.backbone.input.vocab_size = small.head.vocab_size
  _shrink_tokenizer(small, grid)
  small.data.batch_size = 4
  return locked(small)


def _shrink_sampler(sampler):
  if 'steps' in sampler:
    sampler.steps = 3
  _shrink_counts(sampler)


def _shrink_counts(part):
  if 'counts' in part:
    part.counts.update({k: 3 for k in part.counts if k != 'type'})


def _shrink_head(head):
  if 'vocab_size' in head:
    head.vocab_size = min(head.vocab_size, 64)
  if 'channels' in head:
    head.channels = min(head.channels, 4)
  if 'depth' in head:
    head.depth = 2
  _shrink_counts(head)
  if 'order' in head:
    order = tuple(i for i in head.order if i < head.channels)
    head.update(order=order, levels=16, heads=2, hidden=64)
  if 'attention' in head:
    head.heads = 2
    head.mlp.hidden = 64
    if 'cross' in head.block:
      head.block.cross.heads = 2


def _shrink_condition(small):
  condition = small.condition
  if 'classes' in condition:
    count = condition.classes
    condition.classes = 10 if count is None else min(count, 10)
    if small.layout.get('prefix', 0) > 4:
      small.layout.prefix = condition.prefix = 4
  else:
    condition.update(length=4, channels=8)
    small.data.text.update(length=4, channels=8)
    small.layout.prefix = 4


def _shrink_grids(small):
  """Cuts scales and rasters to sides of at most 4; returns the full grid."""
  scales = small.tokenizer.get('scales')
  height, width = grids(scales)[-1] if scales else small.tokenizer.grid
  side = max(height, width)
  height, width = (max(1, round(4 * n / side)) for n in (height, width))
  if not scales:
    small.tokenizer.grid = (height, width)
    if 'layout' in small:
      _shrink_rasters(small, height, width, side)
    return height, width
  count = min(len(scales), 4)
  cut = tuple(
    (max(1, height * i // count), max(1, width * i // count))
    for i in range(1, count + 1)
  )
  small.tokenizer.scales = cut
  if 'layout' in small:
    small.layout.scales = cut
    _shrink_lists(small, cut)
  return height, width


def _shrink_rasters(small, height, width, side):
  """The layout, or the one that it doubles, and that of the sampler."""
  layouts = [small.layout.get('layout', small.layout)]
  if 'layout' in small.sampler:
    layouts.append(small.sampler.layout)
  for layout in layouts:
    layout.update(height=height, width=width)
    if 'cell' in layout:
      layout.cell = tuple(max(1, 4 * n // side) for n in layout.cell)


def _shrink_lists(small, cut):
  """Lists of scales, for models that change theirs."""
  if 'groups' in small.feed:
    small.feed.groups = ((cut[:1], 1), (cut[1:-1], 1), (cut[-1:], 1))
    small.feed.update(usual=cut, budget=sum(h * w for h, w in cut) - 1)
  if 'layout' in small.sampler:
    small.sampler.layout.scales = cut
    small.sampler.greedy_steps = (len(cut) - 2,)
    small.sampler.guidance.shares = (0.0, *(1.0 for _ in cut[1:]))


def _shrink_tokenizer(small, grid):
  tokenizer = small.tokenizer
  codes = 'vocab_size' in tokenizer
  if codes:
    tokenizer.vocab_size = min(tokenizer.vocab_size, 64)
  if 'levels' in tokenizer:
    tokenizer.levels = 16
  tokenizer.channels = min(tokenizer.channels, 8 if codes else 4)
  if 'patch' in tokenizer.encoder and 'length' in tokenizer.encoder:
    _shrink_vit(small)
    return
  for half in (tokenizer.encoder, tokenizer.decoder):
    half.update(ch=8, ch_mult=half.ch_mult[:2], res_blocks=1)
  tokenizer.encoder.z_channels = 8 if codes else 2 * tokenizer.channels
  factor = tokenizer.encoder.get('patch', 1)
  factor *= 2 ** (len(tokenizer.encoder.ch_mult) - 1)
  small.data.size = (factor * grid[0], factor * grid[1])


def _shrink_vit(small):
  """A tokenizer of codes in a line: 4 x 4 patches of at most 4 px."""
  tokenizer = small.tokenizer
  patch = min(tokenizer.encoder.patch, 4)
  for half in (tokenizer.encoder, tokenizer.decoder):
    half.update(width=32, depth=2, heads=2, patch=patch)
    half.length = tokenizer.grid[1]
  tokenizer.encoder.z_channels = tokenizer.channels
  tokenizer.decoder.grid = (4, 4)
  if 'pixel_decoder' in tokenizer:
    tokenizer.update(pixel_codes=16, pixel_channels=8)
    tokenizer.decoder.codes = 16
    pixel = tokenizer.pixel_decoder
    pixel.update(ch=8, ch_mult=pixel.ch_mult[:2], res_blocks=1)
    patch = pixel.get('patch', 1) * 2 ** (len(pixel.ch_mult) - 1)
    for half in (tokenizer.encoder, tokenizer.decoder):
      half.patch = patch
  small.data.size = (4 * patch, 4 * patch)
