"""The structures that the six parts hand to one another.

Vocabulary: b batch, n slots, d width, t tokens, c latent channels, e slots of
an entity, r branches, p prefix slots.
"""

import dataclasses
import math
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array | np.ndarray
# A template is a functools.partial that build.py makes of a nested config
# block: the parent calls it, so no two places can share one instance.
Template = Any


@flax.struct.dataclass
class Tokens:
  """Tokens of a batch of images, scales concatenated small to large.

  Attributes:
    values: (b, t) int32 ids, (b, t, parts) int32 ids of every part, or
      (b, t, parts) float32 latents; raster order inside a scale.
    shown: what the network is given where it differs from what it predicts
      (flipped bits), shaped like `values`; None: the values themselves.
  """

  values: Array
  shown: Array | None = None

  @property
  def given(self) -> jax.Array:
    """What feeds make slots of, shaped like `values`."""
    return jnp.asarray(self.values if self.shown is None else self.shown)


@dataclasses.dataclass(frozen=True)
class TokenSpec:
  """What a tokenizer emits, in static terms.

  Attributes:
    size: ids that a part of a token can be; 0 for continuous tokens.
    parts: ids or numbers of a token: 1 for plain codes; bits, levels or latent
      channels otherwise.
    channels: width of the embedded token that `Tokenizer.embed` returns.
    grids: sides of every scale, small to large, (height, width) for images and
      (1, length) for a line of tokens; one grid for a single-scale tokenizer.
  """

  size: int
  parts: int
  channels: int
  grids: tuple[tuple[int, ...], ...]

  @property
  def length(self) -> int:
    """Tokens of an image."""
    return sum(math.prod(grid) for grid in self.grids)

  @property
  def codes(self) -> bool:
    """Whether a token is one id."""
    return self.size > 0 and self.parts == 1

  @property
  def shape(self) -> tuple[int, ...]:
    """Shape of the tokens of an image: (t,) codes, or (t, parts)."""
    return (self.length,) if self.codes else (self.length, self.parts)

  def blank(self, batch: int = 1) -> Tokens:
    """Zeros instead of tokens: ids, or latents of continuous tokens."""
    dtype = jnp.int32 if self.size else jnp.float32
    return Tokens(jnp.zeros((batch, *self.shape), dtype))


@flax.struct.dataclass
class Slots:
  """What enters the backbone: the slots of one step, or of all steps.

  Leading axis b, or 1 where equal for all examples; None where unused. Prefix
  slots hold zeros: `Cond.prefix` fills them.

  Attributes:
    values: (b, n) int32 or (b, n, c) float.
    index: (n,) int32 the place of every slot in the layout. Without a cache the
      slots see one another, and those of the prefix come first.
    extent: static; rows of a cache at or after it are not visible.
    level: (b, s) float32 noise level, 0 = data, 1 = noise, of every entity of
      the layout, those of a second stream behind those of the first; (b, 1)
      where all slots have the same.
    masked: (b, n) bool, True = hidden from the network.
    max_unmasked: static; at most so many slots, those of the prefix included,
      are not masked; None: no bound is known.
    valid: (b, n) bool, False = padding, seen by nobody but itself.
    position: (b, n) int32 raster index of the token that a slot carries, -1
      none; None: as the layout says, for all examples.
    target_position: (b, n) int32 raster index of the token that a slot
      predicts, likewise.
  """

  values: Array
  index: Array
  extent: int = flax.struct.field(pytree_node=False, default=0)
  level: Array | None = None
  masked: Array | None = None
  max_unmasked: int | None = flax.struct.field(pytree_node=False, default=None)
  valid: Array | None = None
  position: Array | None = None
  target_position: Array | None = None


@flax.struct.dataclass
class Targets:
  """What a head is trained on; training only.

  Attributes:
    values: (b, t) int32 or (b, t, c) float: ids, latents or velocities.
    weight: (b or 1, t) float32 weight of every token's loss.
    denominator: (b or 1, t) float32 what every token adds to the denominator of
      the mean loss; None: its weight.
    readout: (t, r) int32 slot that each target is read from; None: the slot
      that the layout says.
  """

  values: Array
  weight: Array
  denominator: Array | None = None
  readout: Array | None = None


@flax.struct.dataclass
class Query:
  """What a head is told of the tokens that it predicts; each may be None.

  Attributes:
    values: (b, t, c) what a field is evaluated at: latents with noise, or the
      ids of all parts where a part is predicted given those before.
    level: (b, s) of every entity, or (b or 1, 1 or t), the noise level or time
      of `values`.
    entity: (t,) int32 step at which every token is predicted.
    coords: (t, axes) float32 where the tokens lie.
    present: (t, r) bool, the branches that predict each token.
    step: () of the sampler's loop, for heads with a loop of their own; traced or
      not, None in training.
    steps: static; of the sampler's loop.
  """

  values: Array | None = None
  level: Array | None = None
  entity: Array | None = None
  coords: Array | None = None
  present: Array | None = None
  step: Any = None
  steps: int = flax.struct.field(pytree_node=False, default=0)


@flax.struct.dataclass
class Cond:
  """The condition as the backbone takes it; each field may be None.

  Attributes:
    prefix: (b, p, d) vectors that fill the prefix slots.
    modulation: (b, 1, d) vector that adaLN reads, (b, n, d) with a row for every
      slot of the layout, or (b, s, d) with one for every entity.
    per: static; 'slot' or 'entity', what rows of `modulation` are of.
    memory: (b, m, d) what blocks with cross attention read.
    per_token: (b, t, d) vectors that are added to the slots that predict the
      tokens, in raster order.
    prefix_valid: (b, p) bool, False = padding of a short caption.
    memory_valid: (b, m) bool, False = padding.
  """

  prefix: Array | None = None
  modulation: Array | None = None
  memory: Array | None = None
  per_token: Array | None = None
  prefix_valid: Array | None = None
  memory_valid: Array | None = None
  per: str = flax.struct.field(pytree_node=False, default='slot')


@flax.struct.dataclass
class Reconstruction:
  """What a tokenizer's own training pass returns.

  Attributes:
    image: (b, H, W, C) float32, the decoded image, not clipped.
    losses: name -> scalar of the quantiser's losses, already weighted.
    codes: (b, t) int32 codes used, None where a token is not one id.
    features: (b, ..., c) what was quantised, in the order of `codes`; dead codes
      restart from it.
    metrics: name -> `metrics.Mean`.
  """

  image: Array
  losses: dict[str, Array]
  codes: Array | None = None
  features: Array | None = None
  metrics: dict[str, Any] = flax.struct.field(default_factory=dict)
