"""Data structures that the parts exchange.

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
    shown: input tokens of the network where they differ from the targets
      (flipped bits), shaped like `values`; None: the values themselves.
  """

  values: Array
  shown: Array | None = None

  @property
  def given(self) -> jax.Array:
    """Input tokens of the network, shaped like `values`."""
    return jnp.asarray(self.values if self.shown is None else self.shown)


@dataclasses.dataclass(frozen=True)
class TokenSpec:
  """Static description of the tokens that a tokenizer emits.

  Attributes:
    size: number of ids that a part of a token can take; 0 for continuous
      tokens.
    parts: ids or numbers per token: 1 for plain codes; the number of bits,
      levels or latent channels otherwise.
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
    """Number of tokens of an image."""
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
  """Inputs of the backbone: the slots of one step, or of all steps.

  Leading axis b, or 1 where equal for all examples; None where unused. Prefix
  slots hold zeros: `Cond.prefix` fills them.

  Attributes:
    values: (b, n) int32 or (b, n, c) float.
    index: (n,) int32 index of every slot in the layout. Without a cache the
      slots attend to one another, and prefix slots come first. (b, n) for slots
      that every example has of its own: they are computed again against a cache
      that holds the whole layout (ReCAP).
    extent: static; cache entries from this index on are not visible.
    level: (b, s) float32 noise level of every entity of the layout, 0 = data,
      1 = noise; the second stream follows the first. (b, 1) where all slots
      have the same level.
    masked: (b, n) bool, True = hidden from the network.
    max_unmasked: static upper bound of the number of unmasked slots, prefix
      slots included, or one of every stage; None: no bound is known.
    recall: (b, n) bool, True = carries the hidden state that an earlier stage gave
      to its token (Hi-MAR); None: slots carry `values`.
    hidden: (b, n, d) these hidden states; a backbone that has stages sets them.
    valid: (b, n) bool, False = padding, which only attends to itself and which
      no other slot attends to.
    position: (b, n) int32 raster index of the token that a slot carries, -1
      for none; None: the positions of the layout, for all examples.
    target_position: (b, n) int32 raster index of the token that a slot
      predicts; -1 and None as for `position`.
    guidance: () scale of the guidance inside of layers, in sampling; None: none.
    guided_layers: static; the layers whose outputs are guided, -1 for the last.
      The batch is then [conditional; null].
  """

  values: Array
  index: Array
  extent: int = flax.struct.field(pytree_node=False, default=0)
  level: Array | None = None
  masked: Array | None = None
  max_unmasked: int | tuple[int, ...] | None = flax.struct.field(
    pytree_node=False, default=None
  )
  recall: Array | None = None
  hidden: Array | None = None
  valid: Array | None = None
  position: Array | None = None
  target_position: Array | None = None
  guidance: Array | None = None
  guided_layers: tuple[int, ...] = flax.struct.field(
    pytree_node=False, default=()
  )


@flax.struct.dataclass
class Targets:
  """Training targets of a head.

  Attributes:
    values: (b, t) int32, (b, t, parts) int32 or (b, t, c) float: ids, latents or
      velocities.
    weight: (b or 1, t) float32 weight of every token's loss, or (b, t, parts) of
      every part's.
    denominator: share of every loss in the denominator of the mean loss, shaped
      like `weight`; None: the weight.
    readout: (t, r) int32 slot that each target is read from; None: the readout
      of the layout.
  """

  values: Array
  weight: Array
  denominator: Array | None = None
  readout: Array | None = None


@flax.struct.dataclass
class Query:
  """Inputs of a head besides the hidden states; each field may be None.

  Attributes:
    values: (b, t, c) point at which a field is evaluated: noisy latents, or the
      ids of all parts where each part is predicted from the parts before it. In
      sampling by a head of whole entities: the tokens that are not masked.
    given: (b, t, ...) what the slots carry from which the tokens are read.
    level: (b, s) noise level of every entity, or (b or 1, 1 or t) noise level
      or time of `values`.
    entity: (t,) int32 entity of every token; (b, t) where `Slots.index` is (b, n).
    coords: (t, axes) float32 coordinates of the tokens, likewise.
    present: (t, r) bool, the branches that predict each token.
    masked: (b, t) bool, the tokens that are hidden from the network; None where
      none can be.
    step: () step of the sampler's loop, for heads with a loop of their own;
      traced or static, None in training.
    steps: static number of steps of the sampler's loop.
    share: static share of its usual steps that a loop of the head takes, at
      least one step.
  """

  values: Array | None = None
  given: Array | None = None
  level: Array | None = None
  entity: Array | None = None
  coords: Array | None = None
  present: Array | None = None
  masked: Array | None = None
  step: Any = None
  steps: int = flax.struct.field(pytree_node=False, default=0)
  share: float = flax.struct.field(pytree_node=False, default=1.0)


@flax.struct.dataclass
class Cond:
  """Output of the condition, for the backbone; each field may be None.

  Attributes:
    prefix: (b, p, d) vectors that fill the prefix slots.
    modulation: (b, 1, d) vector that adaLN reads, or one vector per slot of the
      layout (b, n, d) or per entity (b, s, d).
    per: static; 'slot' or 'entity', the second axis of `modulation`.
    memory: (b, m, d) vectors for cross attention.
    per_token: (b, t, d) vectors in raster order, added to the slots that predict
      the tokens.
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
  """Result of the training pass of a tokenizer.

  Attributes:
    image: (b, H, W, C) float32, the decoded image, not clipped.
    losses: name -> scalar of the quantiser's losses, already weighted.
    codes: (b, t) int32 codes used, None where a token is not one id.
    features: (b, ..., c) vectors that were quantised, in the order of `codes`;
      dead codes restart from them.
    metrics: name -> `metrics.Mean`.
  """

  image: Array
  losses: dict[str, Array]
  codes: Array | None = None
  features: Array | None = None
  metrics: dict[str, Any] = flax.struct.field(default_factory=dict)
