"""A decoder in stages, which hand hidden states on (Hi-MAR)."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from arvision.backbones.decoder import Decoder
from arvision.layers.dense import Dense
from arvision.layers.param import normal, param
from arvision.layouts.base import Layout
from arvision.structs import Cond, Slots


@flax.struct.dataclass
class Recalled:
  """Hidden states of tokens, as they were when a token was masked last.

  Attributes:
    values: (b, m, d) float32, of the m tokens before the last stage.
    known: (b, m) bool, False for tokens that were never masked.
  """

  values: jax.Array
  known: jax.Array

  def write(self, tokens: np.ndarray, z: jax.Array, masked: jax.Array):
    """With hidden states z (b, t, d) of those tokens (t,) that are masked."""
    old = self.values[:, tokens]
    z = jnp.where(masked[..., None], z.astype(jnp.float32), old)
    known = self.known[:, tokens] | masked
    return Recalled(
      self.values.at[:, tokens].set(z), self.known.at[:, tokens].set(known)
    )


class Stages(Decoder):
  """Runs the stages of a `layouts.stages.stages` one after another.

  Parameters are shared, and a later stage reads hidden states of earlier ones:
  where `Slots.recall` is True, the slot of a token of an earlier stage carries the
  hidden state that this token had when it was masked last, without a gradient. Its
  other slots of earlier tokens carry learned vectors; without `recall`, the tokens.
  The cache of decoding holds these hidden states and nothing else.

  The prefix of the condition has the vectors of all stages, one stage after another.

  Source: arXiv 2505.20288; HiDream-ai/himar, models/himar.py.
  """

  recalls = True

  def __call__(
    self,
    slots: Slots,
    cond: Cond,
    layout: Layout,
    *,
    cache: Any = None,
    commit: bool = True,
    train: bool = False,
  ) -> tuple[jax.Array, Any]:
    """Hidden vectors (b, n, 1, d) of the slots of some stages, see `Backbone`."""
    batch = jnp.shape(slots.values)[0]
    past = self.empty_cache(batch, layout) if cache is None else cache
    entity, found = layout.entity[slots.index], []
    for s in np.unique(entity).tolist():
      at = np.flatnonzero(entity == s)
      own = self._of_stage(slots, at, s, past, layout)
      prefix = cond.prefix
      if prefix is not None:
        prefix = prefix[:, s * layout.prefix : (s + 1) * layout.prefix]
      hidden, _ = super().__call__(
        own, cond.replace(prefix=prefix), layout, train=train
      )
      found.append(hidden)
      if s < layout.steps - 1 and own.masked is not None:
        tokens = np.flatnonzero(layout.entity_of_token == s)
        places = np.searchsorted(own.index, layout.readout[tokens, 0])
        z = jax.lax.stop_gradient(hidden[:, places, 0])
        past = past.write(tokens, z, own.masked[:, places])
    hidden = jnp.concatenate(found, 1)
    return hidden, cache if cache is None or not commit else past

  def empty_cache(self, batch: int, layout: Layout, room: int = 0) -> Any:
    """`Recalled` without any hidden state; nothing is computed again."""
    del room
    count, width = _earlier(layout), self._sizes[-1].width
    return Recalled(
      jnp.zeros((batch, count, width), jnp.float32),
      jnp.zeros((batch, count), bool),
    )

  def _of_stage(self, slots, at, s, past, layout):
    """The slots of a stage (n,), with the hidden states that they carry."""

    def part(x):
      return x if x is None else x[:, at]

    own = slots.replace(
      index=slots.index[at],
      **{k: part(getattr(slots, k)) for k in ('values', 'masked', 'recall')},
    )
    if isinstance(slots.max_unmasked, tuple):
      own = own.replace(max_unmasked=slots.max_unmasked[s])
    if own.recall is None or not s:
      return own.replace(recall=None)
    token = layout.token[own.index].clip(0, past.known.shape[1] - 1)
    return own.replace(
      recall=own.recall & past.known[:, token], hidden=past.values[:, token]
    )

  def _tokens(self, slots, layout):
    """Embedded tokens, those of the last scale by a map of their own."""
    token = layout.token[slots.index]
    entity = np.where(token >= 0, layout.entity_of_token[token], layout.steps)
    embed = self.input(width=self.width, name='input')
    small = self.input(width=self.width, name='input_small')
    x = embed(slots.values, slots.masked)
    y = small(slots.values, slots.masked)
    last = (entity >= layout.steps - 1)[:, None]
    x = jnp.where(last, x, y)
    if slots.hidden is None:
      return x
    count, channels = _earlier(layout), slots.values.shape[-1]
    unknown = param(
      self, 'unknown', normal(0.02), (None, None), (count, channels)
    )
    recalled = Dense(
      (self.width,), ('mlp', 'embed'), kernel_init=normal(None), name='recalled'
    )
    at = np.flatnonzero(entity < layout.entity[slots.index])
    nothing = small(jnp.asarray(unknown)[None], None)[:, token[at]]
    z = recalled(slots.hidden[:, at])
    return x.at[:, at].set(jnp.where(slots.recall[:, at, None], z, nothing))


def _earlier(layout):
  """Number of tokens before those of the last stage."""
  return int((layout.entity_of_token < layout.steps - 1).sum())
