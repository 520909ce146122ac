"""Measures samplers of absorbing diffusion, and draws the noise of 32 bits.

    python launch/discrete_diffusion.py

Trains SMDM on scikit-learn's digits where needed, and samples from it in several
ways. Writes docs/absorbing.md and docs/images/rare_ids.svg; `--docs` names another
folder.

Source: arXiv 2409.02908, 2410.18514.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from training import complete, open_runs, parser, where

from arvision import random
from arvision.build import build
from arvision.evals import plots
from arvision.model import BoundModel
from arvision.random import Draw
from arvision.runs.trained import load_run
from arvision.samplers.absorbing import network_calls
from arvision.sweeps.points import slug
from arvision.sweeps.runs import Job, Runs

TOKENIZER, GENERATOR = 'maskgit/digits_tokenizer', 'smdm/digits'
SAMPLES, IMAGES = 1000, 100


@dataclasses.dataclass(frozen=True)
class Way:
  """A way to sample.

  Attributes:
    name: name in the table.
    fields: of the config's block `sampler`.
  """

  name: str
  fields: tuple[tuple[str, str | int], ...]

  @property
  def label(self) -> str:
    """Name of its figures."""
    return slug(f'eval {self.name}')

  @property
  def flags(self) -> tuple[str, ...]:
    """Its flags."""
    return tuple(f'--config.sampler.{k}={v}' for k, v in self.fields)


def ancestral(steps: int) -> Way:
  fields = (('type', 'samplers.absorbing.Ancestral'), ('steps', steps))
  return Way(f'ancestral, {steps:,} steps', fields)


WAYS = (
  Way('first hitting', ()),
  *map(ancestral, (256, 64, 16, 4)),
  Way('first hitting, 4 tokens a call', (('at_once', 4),)),
)


def jobs(runs: Runs) -> list[Job]:
  """The tokenizer, the generator and its evaluations."""
  train = (
    f'--config={GENERATOR}',
    f'--config.frozen.tokenizer={runs.folder(TOKENIZER)}',
  )
  after = tuple(
    runs.evaluation(
      GENERATOR, f'--samples={SAMPLES}', *way.flags, label=way.label
    )
    for way in WAYS
  )
  needs = (slug(TOKENIZER),)
  return [
    Job(slug(TOKENIZER), (f'--config={TOKENIZER}',)),
    Job(slug(GENERATOR), train, needs, after),
  ]


def calls(runs: Runs, way: Way) -> float:
  """Calls of the network for an image, the mean over some."""
  run = load_run(str(runs.folder(GENERATOR)))
  block = {**run.config.sampler, **dict(way.fields)}
  sampler = build(block, 'sampler')
  inputs = {'label': jnp.arange(IMAGES) % 10}

  @jax.jit
  def given(params, variables):
    codec = run.tokenizer.bind(variables)
    model = BoundModel(run.model, {'params': params}, codec)
    draw = Draw.create(0, jnp.arange(IMAGES))
    return sampler.loop(model, inputs, draw, IMAGES)[1][0][0]

  ids = given(run.params, run.variables)
  return float(
    np.mean([network_calls(ids[:, i : i + 1]) for i in range(IMAGES)])
  )


# ------------------------------------------------------------ rare ids


def share_of_32_bits(p: float) -> float:
  """How often an id of probability p is drawn, over p, with Gumbel noise of 23 bits.

  Noise is -log(-log(u)) of u = i / 2^23, as `jax.random.categorical` makes it. Against
  one other id of probability 1 - p, every u is counted.
  """
  own = np.maximum(np.arange(2**23) / 2**23, np.finfo(np.float32).tiny)
  # The other id's -log(u) must be larger than this.
  least = -np.log(own) * ((1 - p) / p)
  smaller = np.ceil(2.0**23 * np.exp(-least)) / 2**23
  return float(np.mean(smaller)) / p


def share_of_64_bits(p: float, count: int = 2**18) -> float:
  """The same with `random.exponential`, of evenly spaced words of 64 bits.

  The exponential number of the id is less than 64 p, but for a chance of e^-64.
  """
  most = min(1.0, 64 * p)
  words = ((np.arange(count) + 0.5) / count * most * 2.0**64).astype(np.uint64)
  high, low = np.uint32(words >> np.uint64(32)), np.uint32(words)
  own = np.float64(random.exponential(high, low))
  return most * float(np.mean(np.exp(-own * ((1 - p) / p)))) / p


def picture() -> str:
  """The chart of both, as SVG."""
  powers = range(40, 9, -1)
  ways = {'32 bits': share_of_32_bits, '64 bits': share_of_64_bits}
  series = {
    name: [(-n, share(2.0**-n)) for n in powers] for name, share in ways.items()
  }
  return plots.svg(
    plots.lines(series, 'log2 of the probability of an id', 'drawn / stated')
  )


# ---------------------------------------------------------------- page

HEAD = """# Sampling masked models without an approximation

A masked model of ids is a diffusion whose noise masks them (absorbing diffusion). Its
samples have the distribution of the model if one id is drawn after another, in random
order. `samplers.absorbing` has the ways to do that, for every model that fills masked
ids (MaskGIT, TiTok, SMDM, …):

```bash
arvision sample --workdir=runs/smdm/digits --labels=3
arvision sample --workdir=runs/maskgit/digits --labels=3 \\
  --config.sampler.type=samplers.absorbing.FirstHitting
```

- **Ancestral** sampling goes through time in even steps, and unmasks every id with the
  probability of the step. Ids that are unmasked in one step are independent, so few
  steps are an approximation. Steps in which nothing happened need no call of the
  network.
- **First hitting** samples the times at which infinitely many steps would unmask an id:
  one call of the network per id, and no approximation. `at_once` unmasks several.

Made by `python launch/discrete_diffusion.py` on {where}: SMDM on scikit-learn's digits
(16 codes an image), {samples:,} samples each. Calls are those of an image on its own, the mean
over {images}; in a batch a step is left out if nothing happens in any image.

| sampler | calls of the network | class accuracy | Fréchet |
|---|--:|--:|--:|
"""

TAIL = """
## Noise of 32 bits draws rare ids too rarely

An id is drawn as the largest of logits plus Gumbel noise. Uniform float32 numbers are
multiples of 2⁻²³, so the noise ends at 15.9, and ids of a small probability are drawn
too rarely or never. In a sampler of many steps every id has a small probability in each,
so this acts as a lower temperature: samples look better, and their variety falls (arXiv
2409.02908). `process.logits.Precise` draws with 64 bits, in any sampler:
`--config.sampler.logits_filter.type=process.logits.Precise`.

![How often a rare id is drawn, over its probability](images/rare_ids.svg)

Counted over all noise of an id beside a second one, not sampled.
`tests/parts/test_precise.py` holds both.
"""


def page(runs: Runs) -> str:
  """The text of docs/absorbing.md."""
  lines = []
  for way in WAYS:
    figures = runs.figures(GENERATOR, way.label)
    cells = (
      way.name,
      f'{calls(runs, way):.1f}',
      f'{100 * figures["class_accuracy"]:.1f} %',
      f'{figures["frechet"]:.2f} ({figures["frechet_of_held_out"]:.2f})',
    )
    lines.append(f'| {" | ".join(cells)} |\n')
  head = HEAD.format(where=where(), samples=SAMPLES, images=IMAGES)
  return head + ''.join(lines) + TAIL


def main() -> None:
  args = parser(__doc__, 'runs/absorbing').parse_args()
  runs = open_runs(args.output)
  complete(runs, jobs(runs))
  (args.docs / 'images' / 'rare_ids.svg').write_text(
    picture(), encoding='utf-8'
  )
  (args.docs / 'absorbing.md').write_text(page(runs), encoding='utf-8')
  print(f'\n{args.docs / "absorbing.md"}: {len(WAYS)} samplers')


if __name__ == '__main__':
  main()
