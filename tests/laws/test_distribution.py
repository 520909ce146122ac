"""What samplers sample has the probabilities that the model states.

A model of few outcomes is enumerated, and the counts of many samples are held
against the probabilities by a chi-square test. A negative control must fail it.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from arvision.build import build
from arvision.model import sample
from arvision.process.guidance import Constant, guide
from arvision.process.logits import LogitsFilter
from arvision.random import Draw
from arvision.samplers.masked import Masked
from arvision.structs import Tokens
from tests.configs import TINY
from tests.laws.test_generators import Case, jit

SAMPLES, IDS = 100_000, 4
FILTERED = LogitsFilter(temperature=0.8, top_k=3)
NUCLEUS = LogitsFilter(temperature=1.2, top_p=0.8)
# name -> (config, sides of its grids, what of the sampler is other).
CASES = {
  'raster': ('llamagen/tiny:B', (2, 2), {}),
  'raster, guided and filtered': (
    'llamagen/tiny:B',
    (2, 2),
    {'guidance': Constant(1.7), 'logits_filter': FILTERED},
  ),
  'raster with targets, nucleus': (
    'rar/tiny',
    (2, 2),
    {'logits_filter': NUCLEUS},
  ),
  'diagonals': ('nar/tiny', (2, 2), {}),
  'scales': ('var/tiny:d16', ((1, 1), (1, 3)), {}),
  'masked, at once': ('maskgit/tiny', (2, 2), {'steps': 1}),
  'masked parts, at once': ('maskbit/tiny', (1, 2), {'steps': 1}),
  'channel by channel': ('tokenbridge/tiny', (1, 1), {'steps': 1}),
}


def small(name, grid):
  """A tiny config with few outcomes and one class."""
  config = TINY[name]()
  with config.unlocked():
    if 'levels' in config.head:
      config.tokenizer.quantizer.levels = config.head.levels = IDS
      config.head.update(depth=1, width=16, hidden=16)
      config.backbone.depth = config.layout.prefix = config.condition.prefix = 1
    elif 'parts' in config.head:
      bits = config.head.parts * (IDS.bit_length() - 1)
      config.tokenizer.quantizer.channels = bits
      config.tokenizer.encoder.z_channels = bits
      config.head.vocab_size = IDS
    else:
      config.tokenizer.quantizer.vocab_size = config.head.vocab_size = IDS
    if 'scales' in config.layout:
      config.tokenizer.scales = config.layout.scales = grid
    else:
      config.tokenizer.grid = grid
      config.layout.update(height=grid[0], width=grid[1])
    if 'vocab_size' in config.backbone.input:
      config.backbone.input.vocab_size = IDS
    config.condition.classes = 1
    factor = config.data.size[0] // 4
    height, width = grid if isinstance(grid[0], int) else grid[-1]
    config.data.size = (factor * height, factor * width)
  return config


class Enumerated:
  """A model, all of its outcomes (o, t) or (o, t, parts), and their chances."""

  def __init__(self, name):
    config, grid, changes = CASES[name]
    self.law = Case(small(config, grid))
    if 'slot' in self.law.params['head']:
      # Of the first channel it is read in sampling alone, as published.
      self.law.params['head']['slot'][0] = 0
    sampler = build(self.law.config.sampler, 'sampler')
    plain = {'guidance': Constant(1.0), 'logits_filter': LogitsFilter()}
    self.sampler = dataclasses.replace(sampler, **{**plain, **changes})
    spec = self.law.tokenizer.spec
    self.ids, self.parts = spec.size, int(np.prod(spec.shape))
    axes = np.meshgrid(*[np.arange(self.ids)] * self.parts, indexing='ij')
    outcomes = np.stack([a.ravel() for a in axes], -1).astype(np.int32)
    assert len(outcomes) <= 4096
    self.outcomes = outcomes.reshape(-1, *spec.shape)

  def stated(self, filtered):
    """(o,) probabilities: products of the conditionals of each token."""
    law, rows = self.law, len(self.outcomes)
    inputs = {'label': jnp.zeros(rows, jnp.int32)}

    @jit
    def logits(params, frozen, null):
      codec = law.codec(frozen)
      if self.sampler.fills:
        step = law.layout.runs[0].step(0)
        masked = jnp.ones(self.outcomes.shape[:2], bool)
        slots = law.feed.slots(self.outcomes, step, law.layout, codec, masked)

        def read(m):
          z, query = m.hidden(slots, inputs, null)
          return m.head.field(z, query.replace(values=self.outcomes))

      else:
        read = lambda m: m.logits(Tokens(self.outcomes), inputs, codec, null)
      return law.model.apply({'params': params}, method=read)

    both = [
      logits(law.params, law.frozen, jnp.full(rows, null))
      for null in (False, True)
    ]
    guided = guide(*both, self.sampler.guidance(0, 1))
    log_p = jax.nn.log_softmax(filtered.filter(guided), -1)
    ids = self.outcomes
    if hasattr(law.model.head, 'order'):
      # Such a head says of parts in the order in which it samples them.
      ids = ids[..., np.array(law.model.head.order)]
    each = jnp.take_along_axis(log_p, ids[..., None], -1)
    return np.exp(np.asarray(each, np.float64).reshape(rows, -1).sum(-1))

  def counts(self):
    """(o,) how often every outcome was sampled."""
    law = self.law

    @jit
    def draw(params, frozen):
      draw, codec = Draw.create(0, jnp.arange(SAMPLES)), law.codec(frozen)
      inputs = {'label': jnp.zeros(SAMPLES, jnp.int32)}
      tokens = sample(law.model, params, self.sampler, inputs, draw, codec)
      return tokens.values

    tokens = np.asarray(draw(law.params, law.frozen)).reshape(SAMPLES, -1)
    base = self.ids ** np.arange(self.parts)[::-1]
    return np.bincount(tokens @ base, minlength=len(self.outcomes))


def p_value(counts, probabilities):
  """Of Pearson's chi-square test; outcomes that are expected less than 5 times
  are one."""
  expected = counts.sum() * probabilities / probabilities.sum()
  rare = expected < 5
  seen = np.append(counts[~rare], counts[rare].sum())
  wanted = np.append(expected[~rare], expected[rare].sum())
  some = wanted > 0
  if seen[~some].any():
    return 0.0
  chi = np.sum((seen[some] - wanted[some]) ** 2 / wanted[some])
  freedom = some.sum() - 1
  return float(jax.scipy.special.gammaincc(freedom / 2, chi / 2))


@pytest.mark.parametrize('name', CASES)
def test_samples_have_the_probabilities_that_the_model_states(name):
  case = Enumerated(name)
  counts, filtered = case.counts(), case.sampler.logits_filter
  stated = case.stated(filtered)
  np.testing.assert_allclose(stated.sum(), 1, rtol=1e-4)
  assert np.sum(stated > 1e-4) > 20  # no sure thing
  assert p_value(counts, stated) > 1e-3
  # The control: probabilities at another temperature.
  other = dataclasses.replace(filtered, temperature=1.5 * filtered.temperature)
  assert p_value(counts, case.stated(other)) < 1e-6


def test_the_masked_case_is_one_of_masked_tokens():
  assert isinstance(Enumerated('masked, at once').sampler, Masked)
