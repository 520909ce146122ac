"""Fragments that several configs share.

Configs import only ml_collections and one another, so that they load on a
launcher without JAX.
"""

import math

from ml_collections import ConfigDict, FieldReference


def block(**fields) -> ConfigDict:
  """A part: `type` and its fields.

  Copies the blocks inside, so that a block used twice can be changed once.
  """
  own = ConfigDict.copy_and_resolve_references
  return ConfigDict(
    {k: own(v) if isinstance(v, ConfigDict) else v for k, v in fields.items()}
  )


def size(arg: str, sizes: dict):
  """The row of a published size.

  Raises:
    ValueError: an unknown size; it lists the known ones.
  """
  if arg not in sizes:
    raise ValueError(
      f"no size '{arg}' in this config; there are: {', '.join(sizes)}"
    )
  return sizes[arg]


def grids(scales) -> tuple[tuple[int, int], ...]:
  """Sides or (height, width) pairs -> pairs."""
  return tuple((s, s) if isinstance(s, int) else tuple(s) for s in scales)


class _Op:
  """What a FieldReference computes: fn(its default, *args)."""

  def __init__(self, fn, args):
    self.fn, self.args = fn, args


def computed(fn, *keys: FieldReference) -> FieldReference:
  """A value that follows other keys until it is set itself.

  Args:
    fn: values of these keys -> value.
    *keys: references, `config.data.get_ref('size')`.
  """
  value = fn(*(key.get() for key in keys))
  return FieldReference(value, op=_Op(lambda _, *args: fn(*args), keys))


def follow(config: ConfigDict) -> None:
  """Makes other keys follow the size of the images and the tokenizer.

  The scales of a multi-scale tokenizer follow the aspect of `data.size`. Its patch
  is chosen so that an image becomes as many places as the last scale has. Layout,
  condition and head of its generator follow the tokenizer. So
  `--config.data.size=(128,128)` is all that another resolution takes.
  """
  tokenizer, size = config.tokenizer, config.data.get_ref('size')
  square, levels = tokenizer.scales, tokenizer.encoder.get_ref('ch_mult')
  tokenizer.scales = computed(lambda size: _of_aspect(square, size), size)
  scales = tokenizer.get_ref('scales')
  for part in (tokenizer.encoder, tokenizer.decoder):
    part.patch = computed(_patch, size, scales, levels)
  if 'layout' in config:
    config.layout.scales = tokenizer.get_oneway_ref('scales')
    config.condition.prefix = computed(
      lambda scales: math.prod(grids(scales[:1] or (1,))[0]), scales
    )
    config.head.vocab_size = tokenizer.quantizer.get_oneway_ref('vocab_size')


def _of_aspect(scales, size):
  """Sides of square grids -> grids of the aspect of images of (h, w) px."""
  height, width = size
  least = max(1, min(size))
  if height == width:
    return scales
  return tuple(
    (round(side * height / least), round(side * width / least))
    for side in scales
  )


def _patch(size, scales, ch_mult):
  """Pixels that a place of the first convolution has along each side."""
  places = grids(scales)[-1][0] * 2 ** len(ch_mult[1:]) if scales else 1
  return max(1, size[0] // max(1, places))


def new(seed: int = 0) -> ConfigDict:
  """The blocks that every experiment has, with their defaults."""
  config = ConfigDict()
  config.seed = seed
  config.ema = (0.999,)
  # Decays grow with the steps up to these, so that short runs have averages too.
  config.ema_warmup = True
  config.mesh = block(slice=1, data=-1, fsdp=1, tensor=1, sequence=1)
  # A run saves as often as failures and the cost of a save call for, and at
  # least every tenth of the run.
  config.checkpoint = block(
    every=block(fraction=0.1), hours_between_failures=24.0, keep=2, best=''
  )
  # Copies of the state in the memory of neighbours; 0 steps: none.
  config.checkpoint.memory = block(every=block(steps=0), folder='')
  # A step that takes longer hangs: training ends with the stacks of all threads.
  config.watchdog = block(seconds=3600.0)
  # Pictures are looked at before training, each split for so long at the most.
  config.check_data = block(seconds=20.0)
  # After a loss or gradient that is not finite: 'stop', 'skip' the step, or
  # 'rollback' to the newest checkpoint and leave out the batch.
  config.not_finite = block(action='stop', most=3)
  # Every n steps devices are compared bit by bit; 0: never.
  config.corruption = block(every=block(steps=0))
  # A loss or gradient norm so many deviations above the median of the last steps is
  # noted; 0: none.
  config.spikes = block(factor=10.0, window=100)
  config.log = block(every=block(steps=50))
  config.pictures = block(every=block(fraction=0.1), count=32)
  config.evals = block(
    every=block(fraction=0.1),
    reconstruction=block(type='evals.reconstruction.Reconstruction'),
  )
  return config


def generator(tokenizer: ConfigDict, workdir: str) -> ConfigDict:
  """Starts a config with the data and the tokenizer of a tokenizer's config.

  Args:
    tokenizer: the config that the tokenizer was trained by.
    workdir: where it was trained; `--config.frozen.tokenizer` changes it.
  """
  config = pixels(tokenizer.data, tokenizer.seed)
  tokenizer = tokenizer.copy_and_resolve_references().unlock()
  config.tokenizer = tokenizer.tokenizer
  config.frozen = block(tokenizer=workdir)
  return config


def pixels(data: ConfigDict, seed: int = 0) -> ConfigDict:
  """Starts a config of a generator that needs no trained tokenizer.

  Args:
    data: the block of its data.
    seed: seed.
  """
  config = new(seed)
  config.data = data.copy_and_resolve_references().unlock()
  config.frozen = block()
  config.evals.generation = block(type='evals.generation.Generation')
  config.task = block(type='tasks.autoregressive.Autoregressive', draws=40)
  return config


def fid() -> ConfigDict:
  """FID and its relatives by the protocol of ADM; off without `extractor.path`.

  The path is that of the weights. `reference` is the file of ADM's evaluator;
  '' compares with the training images.
  """
  return block(
    type='evals.distribution.Distribution',
    extractor=block(type='evals.inception.Inception', path=None, variant='adm'),
    reference='',
    samples=50_000,
    every=None,
  )


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


def lpips(weight: float) -> ConfigDict:
  """LPIPS as a distance of a tokenizer's task, off without its `path`."""
  return block(type='tasks.perception.Lpips', weight=weight, path='')


def dino(patch: int, **fields) -> ConfigDict:
  """The discriminator on features of DINO-S, off without `features.path`.

  Args:
    patch: side of its patches in pixels, 8 or 16.
    **fields: of `tokenizers.adversarial.Adversary`.
  """
  return block(
    type='tokenizers.adversarial.Adversary',
    net=block(type='tokenizers.dino.Heads'),
    features=block(type='tasks.perception.Dino', patch=patch, path=''),
    **fields,
  )


def lookup(vocab_size: int, channels: int, **fields) -> ConfigDict:
  """The block of a quantiser with a table of codes."""
  return block(
    type='quantizers.lookup.Lookup',
    vocab_size=vocab_size,
    channels=channels,
    commitment=0.25,
    **fields,
  )


def unit_lookup(vocab_size: int, channels: int) -> ConfigDict:
  """The same with codes of unit length."""
  quantizer = lookup(vocab_size, channels)
  quantizer.type = 'quantizers.lookup.UnitLookup'
  return quantizer


def timm_attention(
  dropout: float, biases: tuple[str, ...] = ('q', 'k', 'v', 'out')
) -> ConfigDict:
  """Attention as in timm's vision transformers.

  Args:
    dropout: rate, of the weights and of the output.
    biases: projections with a bias.
  """
  return block(
    type='layers.attention.Attention',
    kernel='auto',
    biases=biases,
    std=None,
    out_std=None,
    dropout=dropout,
    weights_dropout=dropout,
  )


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
  without: tuple[str, ...] = (),
) -> ConfigDict:
  """AdamW with decay on matrices only.

  Args:
    exempt: see `training.optim.DecayRule`.
    without: see `training.optim.Trained`.
    learning_rate, schedule, weight_decay, b2, clip: see
      `training.optim.Optimizer`.
  """
  return block(
    type='training.optim.Optimizer',
    kind='adamw',
    learning_rate=learning_rate,
    b1=0.9,
    b2=b2,
    eps=1e-8,
    weight_decay=weight_decay,
    decay=block(type='training.optim.DecayRule', min_ndim=2, exempt=exempt),
    trained=block(type='training.optim.Trained', without=without),
    clip=clip,
    accumulate=1,
    schedule=schedule,
  )


def digits(config: ConfigDict, epochs: int, **optim) -> ConfigDict:
  """Ends a digits config of four layers: some minutes on a CPU.

  Args:
    config: to fill.
    epochs: duration.
    **optim: arguments of `adamw` that differ.
  """
  config.backbone.unroll = 4  # all layers, see layers.stack.Stack
  config.data.batch_size = 64
  config.train = block(duration=block(epochs=epochs))
  config.optim = adamw(2e-3, cosine(0.05, epochs=5), **{'clip': 1.0, **optim})
  config.ema = (0.99,)
  neighbours(config)
  return locked(config)


def neighbours(config: ConfigDict) -> None:
  """Adds the nearest training images, for data with few of them."""
  if 'backbone' in config:
    config.evals.neighbours = block(type='evals.neighbours.Neighbours')


# The sizes of the transformers of tiny configs.
TINY = {'depth': 2, 'width': 32, 'heads': 2}


def tiny(config: ConfigDict) -> ConfigDict:
  """Ends a tiny config: some steps on scikit-learn's digits.

  A paper's `tiny.py` and `tiny_tokenizer.py` have the parts and options of its
  published sizes at numbers that tests can afford: 8 × 8 px become 4 × 4 tokens.
  """
  if 'data' not in config:
    config.data = block(
      type='data.pipeline.Images',
      source=block(type='data.digits.Digits'),
      size=(8, 8),
      channels=1,
      cache=True,
    )
    config.task = block(type='tasks.tokenizer.TrainTokenizer', l1=0.0, l2=1.0)
  config.data.batch_size = 4
  config.train = block(duration=block(steps=20))
  config.optim = adamw(1e-3, block(type='training.schedule.Constant'), clip=1.0)
  config.ema = (0.9,)
  return locked(config)


def locked(config: ConfigDict) -> ConfigDict:
  config.lock()
  return config
