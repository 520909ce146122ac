"""ACDiT between its limits: plain diffusion, and next token by diffusion."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from arvision.build import build
from arvision.metrics import total
from arvision.model import sample
from arvision.random import Draw, Replay
from arvision.structs import Slots, Tokens, TokenSpec
from arvision.tasks import assemble
from tests.configs import ALL
from tests.laws.test_generators import BATCH, jit, scrambled


@dataclasses.dataclass(frozen=True)
class Codec:
  """A tokenizer that knows the form of its tokens alone."""

  spec: TokenSpec


class Law:
  """The tiny ACDiT with changes, random weights and random latents."""

  def __init__(self, change):
    self.config = ALL['acdit/tiny']().copy_and_resolve_references().unlock()
    change(self.config)
    self.model = assemble.make_model(self.config)
    self.layout, channels = self.model.layout, self.config.head.channels
    self.codec = Codec(TokenSpec(0, channels, channels, self.layout.grids))
    blank = self.codec.spec.blank()
    self.params = scrambled(assemble.model_shapes(self.model, tokens=blank))
    shape = (BATCH, *self.codec.spec.shape)
    self.tokens = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    self.inputs = {'label': jnp.arange(BATCH)}

  def drawn(self, sampler, draw):
    """Sampled latents (b, t, c)."""
    args = sampler, self.inputs, draw, self.codec
    return jit(lambda p: sample(self.model, p, *args).values)(self.params)


@functools.cache
def law(cell):
  """Blocks of some size."""
  return Law(lambda config: config.layout.layout.update(cell=cell))


@functools.cache
def plain():
  """A diffusion transformer of all latents at once: one stream, all modulated."""

  def change(config):
    config.layout = config.layout.layout
    config.layout.cell = (4, 4)
    config.feed.type = 'feeds.noise.Noise'
    config.backbone.block.adaln.type = 'layers.blocks.AdaLN'

  return Law(change)


def field(law, params, values, level):
  """The predicted noise (b, t, c) of slots with values (b, n, c)."""
  layout = law.layout
  slots = Slots(values, layout.index, layout.slots, level)

  def read(model):
    null = jnp.zeros(len(values), bool)
    return model.head.field(*model.hidden(slots, law.inputs, null))

  return law.model.apply({'params': params}, method=read)


@pytest.mark.parametrize('cell', [(1, 1), (2, 2)])
def test_a_token_sees_the_clean_past_and_its_own_noisy_block_alone(cell):
  """By the Jacobian of the whole network: exact zeros elsewhere."""
  case = law(cell)
  layout = case.layout
  shape = (BATCH, layout.slots, case.tokens.shape[-1])
  values = np.random.default_rng(3).normal(size=shape).astype(np.float32)
  level = jnp.full((BATCH, 2 * layout.steps), 0.6)

  def tokens(values):
    return field(case, case.params, values, level).sum((0, 2))

  slopes = jit(jax.jacrev(tokens))(values)  # (t, b, n, c)
  seen = np.asarray(slopes != 0).any((1, 3))
  own, entity = layout.entity_of_token[:, None], layout.entity
  clean = (layout.stream == 0) & (entity < own)
  noisy = (layout.stream == 1) & (entity == own)
  np.testing.assert_array_equal(seen, clean | noisy)


def test_one_block_is_plain_diffusion():
  """The same loss and the same samples, with the same weights."""
  blocks, one = law((4, 4)), plain()
  rng, tokens = np.random.default_rng(0), blocks.layout.tokens
  noise = rng.normal(size=(BATCH, 2 * tokens, blocks.tokens.shape[-1]))
  noise, level = np.float32(noise), np.float32(rng.random((BATCH, 1)))

  def loss(case, noise):
    draw = Replay({'noise': noise, 'level': level}, size=BATCH)
    args = Tokens(case.tokens), case.inputs, draw
    call = {'train': False, 'method': 'losses'}
    return jit(
      lambda p: total(
        case.model.apply({'params': p}, *args, **call)[0]
      ).compute()
    )(blocks.params)

  np.testing.assert_allclose(
    loss(blocks, noise), loss(one, noise[:, tokens:]), rtol=1e-5
  )
  draw = Draw.create(7, jnp.arange(BATCH))
  sampler = build(one.config.sampler, 'sampler')
  np.testing.assert_allclose(
    blocks.drawn(sampler, draw), one.drawn(sampler, draw), rtol=1e-3, atol=1e-3
  )


@pytest.mark.parametrize(
  ('cell', 'solver'), [((1, 1), 'Ancestral'), ((2, 2), 'DPMSolver')]
)
def test_sampling_with_a_cache_is_a_loop_of_full_masked_passes(cell, solver):
  """Blocks of one token: the next token, each by a diffusion of its own."""
  case = law(cell)
  layout, path, steps = case.layout, case.model.feed.path, 3
  config = case.config.sampler.copy_and_resolve_references()
  config.solver.type = f'process.solvers.{solver}'
  config.guidance.scale = 1.0
  sampler = build(config, 'sampler')
  draw = Draw.create(8, jnp.arange(BATCH))
  got = case.drawn(sampler, draw)

  @jit
  def look(tokens, x, s, level):
    """The noise in the block s, from a pass over both streams."""
    here = jnp.asarray(layout.entity_of_token == s)[:, None]
    both = jnp.stack([tokens, jnp.where(here, x, 5.0)])  # the rest is not seen
    values = both[layout.stream, :, layout.token].swapaxes(0, 1)
    levels = jnp.full((BATCH, 2 * layout.steps), level)
    return field(case, case.params, values, levels)

  levels = sampler.solver.levels(steps)
  tokens = jnp.full(case.tokens.shape, 5.0)  # what comes later is not seen
  for s in range(layout.steps):
    (here,) = np.nonzero(layout.entity_of_token == s)
    own = draw.fold(s)
    x = own.normal('sampler/start', (len(here), tokens.shape[-1]))
    memory = sampler.solver.start(x)
    for i, (level, to) in enumerate(zip(levels, levels[1:])):
      noise = look(tokens, tokens.at[:, here].set(x), s, level)[:, here]
      x, memory = sampler.solver.step(
        path, x, noise, level, to, own.fold(i), memory
      )
    tokens = tokens.at[:, here].set(x)
  np.testing.assert_allclose(got, tokens, rtol=1e-3, atol=1e-3)
