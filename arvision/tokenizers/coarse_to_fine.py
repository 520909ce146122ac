"""Clusters of codes as tokens, and a network that samples codes given them."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax

from arvision.layers.param import fixed, zeros
from arvision.layouts import grid
from arvision.process.guidance import guide
from arvision.process.logits import LogitsFilter
from arvision.quantizers.clusters import Clustering, KMeans
from arvision.random import Draw
from arvision.ranges import Count, Guidance
from arvision.structs import (
  Array,
  Query,
  Reconstruction,
  Slots,
  Template,
  Tokens,
  TokenSpec,
)
from arvision.tokenizers.autoencoder import Autoencoder, flat

_HIDDEN = jnp.finfo(jnp.float32).min


class CoarseToFine(Autoencoder, kw_only=True):
  """A tokenizer whose tokens are clusters of codes, and whose decoder samples.

  A token is the cluster of a code. `decode` first samples the codes of all
  places in one pass of a bidirectional network over the clusters, each from the
  codes of its cluster; the autoencoder decodes them. The map from codes to
  clusters is a parameter that is not trained.

  Source: arXiv 2503.16194 (CTF).

  Attributes:
    quantizer: one with a table of codes, `quantizers.lookup`.
    clusters: number of clusters.
    clustering: divides the codes into clusters, when training starts.
    condition: template of the condition of the fine stage.
    backbone: template of its network, over clusters.
    head: template of its logits, over all codes.
    guidance: scale of its classifier-free guidance.
    logits_filter: its temperature, top-k and top-p.
  """

  clusters: Count
  condition: Template
  backbone: Template
  head: Template
  clustering: Clustering = KMeans()
  guidance: Guidance = 1.0
  logits_filter: LogitsFilter = LogitsFilter()

  adjustable: ClassVar[tuple[str, ...]] = ('guidance', 'logits_filter')

  def setup(self):
    super().setup()
    if not self.static.codebook_path:
      raise ValueError(
        f'config.tokenizer.quantizer ({type(self.quant).__name__}) has no table '
        'of codes; wanted quantizers.lookup.UnitLookup or its like'
      )
    codes = self.static.size
    if self.clusters > codes:
      raise ValueError(
        f'config.tokenizer.clusters={self.clusters}: wanted at most {codes}, the '
        'number of codes (config.tokenizer.quantizer.vocab_size)'
      )
    self.cluster = fixed(self, 'cluster', zeros, (None,), (codes,))
    self.fine_condition = self.condition()
    self.fine_backbone = self.backbone()
    self.fine_head = self.head()

  @property
  def spec(self) -> TokenSpec:
    return TokenSpec(self.clusters, 1, self.static.channels, self.grids)

  @property
  def radices(self) -> tuple[int, ...]:
    return (self.clusters,)

  def digits(self, values: Array) -> Array:
    return values[..., None]

  @property
  def codebook_path(self) -> tuple[str, ...]:
    return ()  # a code that restarts would change the clusters

  def blank(self, batch: int) -> dict:
    return self.condition(parent=None).blank(batch)

  def __call__(
    self, image: jax.Array, draw: Draw | None = None, train: bool = False
  ) -> Reconstruction:
    tokens = self.encode(image)
    image = self.decode(tokens, draw)
    return Reconstruction(image, losses={}, codes=jnp.asarray(tokens.values))

  def fine_loss(
    self, image: jax.Array, inputs: dict, draw: Draw, train: bool = False
  ) -> tuple[jax.Array, dict[str, jax.Array], jax.Array]:
    """Cross entropy of the codes of images given their clusters.

    Args:
      image: (b, H, W, C) in [-1, 1].
      inputs: see `blank`, leading axis b.
      draw: keys of the b examples.
      train: turns on dropout and dropping of the condition.

    Returns:
      (b, t) float32 nats, metrics (b, t) by name, and the clusters (b, t) int32.
    """
    codes = flat([self.quant.quantize(self.encode_latents(image))])
    coarse = self.coarse(codes)
    null = jnp.zeros((draw.batch,), bool)
    if train:
      if self.fine_condition.drop is None:
        raise ValueError(
          'config.tokenizer.fine_condition.drop=None: wanted a number'
        )
      drop = np.asarray(self.fine_condition.drop, np.float32)
      null = draw.uniform('tokenizer/null', drop.shape) < drop
    logits = self._members(self._logits(coarse, inputs, null, train), coarse)
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, codes)
    right = (jnp.argmax(logits, -1) == codes).astype(jnp.float32)
    return loss, {'token_accuracy': right}, coarse

  # ------------------------------------------------------------------ stages

  def coarse(self, codes: jax.Array) -> jax.Array:
    """Codes (...) int32 -> their clusters (...) int32."""
    return jnp.asarray(self.cluster)[codes].astype(jnp.int32)

  def refine(
    self,
    coarse: jax.Array,
    draw: Draw | None = None,
    inputs: dict | None = None,
  ) -> jax.Array:
    """Clusters (b, t) int32 -> codes (b, t) int32 that are members of them.

    Args:
      coarse: the clusters.
      draw: keys of the b examples; None: the likeliest codes.
      inputs: see `blank`; without them there is no condition.
    """
    batch, length = coarse.shape
    blank = self.blank(batch)
    known = {*blank} <= {*(inputs or {})}
    inputs = {k: inputs[k] for k in blank} if inputs and known else blank
    null = jnp.full((batch,), not known)
    if known and self.guidance != 1:
      twice = lambda x: jnp.concatenate([x, x])
      both = jnp.repeat(jnp.arange(2) > 0, batch)
      field = self._logits(twice(coarse), jax.tree.map(twice, inputs), both)
      logits = guide(*jnp.split(field, 2), self.guidance)
    else:
      logits = self._logits(coarse, inputs, null)
    logits = self._members(logits, coarse)
    if draw is None:
      return jnp.argmax(logits, -1).astype(jnp.int32)
    # The steps before `length` are those of the clusters.
    return self.logits_filter(logits, draw.fold(length))

  def _logits(self, coarse, inputs, null, train=False):
    """(b, t, v) float32 logits of all codes."""
    cond = self.fine_condition(inputs, null=null)
    prefix = 0 if cond.prefix is None else cond.prefix.shape[1]
    layout = grid.whole(*self.latent_grid, prefix)
    values = jnp.pad(coarse, ((0, 0), (prefix, 0)))
    slots = Slots(values, layout.index, layout.slots)
    hidden, _ = self.fine_backbone(slots, cond, layout, train=train)
    return self.fine_head.field(hidden[:, prefix:], Query())

  def _members(self, logits, coarse):
    """Logits without the codes of other clusters."""
    own = jnp.asarray(self.cluster) == coarse[..., None]
    return jnp.where(own, logits, _HIDDEN)

  # ----------------------------------------------------------- image <-> tokens

  def _tokens(self, latent):
    return Tokens(self.coarse(flat([self.quant.quantize(latent)])))

  def decode(
    self,
    tokens: Tokens,
    draw: Draw | None = None,
    inputs: dict | None = None,
  ) -> jax.Array:
    codes = self.refine(jnp.asarray(tokens.values), draw, inputs)
    latent = self._on_grid(self.quant.embed(codes))
    latent = self.quant.unscaled(latent)
    return jnp.clip(self.decode_latents(latent), -1, 1)

  def embed(self, values: jax.Array) -> jax.Array:
    """Clusters (b, e) -> the means (b, e, c) of their codes."""
    codes: Any = self.quant.codes
    of = self.coarse(jnp.arange(len(codes)))
    sums = jnp.zeros((self.clusters, codes.shape[1])).at[of].add(codes)
    sizes = jnp.bincount(of, length=self.clusters)
    return (sums / jnp.maximum(sizes, 1)[:, None])[values]
