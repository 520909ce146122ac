"""Training a tokenizer: reconstruction, codes, perception, discriminator."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from arvision.errors import ConfigError
from arvision.metrics import Mean, Metric, Term
from arvision.quantizers import lookup
from arvision.random import Draw
from arvision.ranges import AtLeast0, Natural
from arvision.structs import Reconstruction
from arvision.tasks import discriminators
from arvision.tasks.base import (
  Batch,
  Frozen,
  GradientTask,
  Metrics,
  Objective,
  TrainState,
)
from arvision.tasks.perception import Distance
from arvision.tokenizers import adversarial, losses

_USAGE_DECAY = 0.99


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class TrainTokenizer(GradientTask):
  """Σ weight x loss over the tokenizer, and the discriminator's hinge loss.

  `TrainState.params` has 'tokenizer' and, with a discriminator,
  'discriminator'; the running averages have 'tokenizer' alone.

  Source: Esser et al., arXiv 2012.09841; Sun et al., arXiv 2406.06525.
  Differs: both networks are stepped from one pass over the batch, so the
    discriminator sees the reconstructions the tokenizer was judged by. Codes
    that no place has chosen for a while are moved to latents of the batch.

  Attributes:
    tokenizer: the trained module.
    tx: its optimizer.
    l1: weight of the mean absolute difference.
    l2: weight of the mean squared difference.
    distances: name -> further distance, such as LPIPS, see `tasks.perception`;
      without a file of weights it is off.
    quantizer: weight of the losses of the tokenizer's own parts, on top of
      theirs.
    adversary: the discriminator, None for none.
    restart_after: steps without use until a code is restarted; 0 is never.
    frozen: {'distance/<name>': weights, 'adversary': weights}, read from the files where not given.

  Raises:
    ConfigError, DataError: weights that cannot be read, images too small for a
      distance, codes to be restarted where there is no table of them.
  """

  tokenizer: Any
  l1: AtLeast0 = 0.0
  l2: AtLeast0 = 1.0
  distances: Mapping[str, Distance] = dataclasses.field(default_factory=dict)
  quantizer: AtLeast0 = 1.0
  adversary: adversarial.Adversary | None = None
  restart_after: Natural = 0

  def __post_init__(self):
    if self.restart_after and not self.tokenizer.codebook_path:
      raise ConfigError(
        f'config.task.restart_after={self.restart_after}: the quantiser has no '
        'table of codes (config.tokenizer.quantizer); set it to 0'
      )
    for name, distance in self.distances.items():
      if distance.weight:
        self._check_size(name, distance)
        self._read(f'distance/{name}', distance, f'distances.{name}')
    if self.adversary is not None and self.adversary.features is not None:
      self._read('adversary', self.adversary.features, 'adversary.features')

  def _read(self, name, network, key):
    """Reads the weights of a network where they are not given."""
    if name not in self.frozen:
      found = network.read(f'config.task.{key}')
      if found is not None:
        self.frozen[name] = found

  def _check_size(self, name, distance):
    height, width, _ = self.image_shape
    if distance.path and min(height, width) < distance.smallest:
      raise ConfigError(
        f'config.task.distances.{name} needs images of at least '
        f'{distance.smallest} px, got {height} x {width}; set '
        f'config.task.distances.{name}.weight=0'
      )

  @property
  def judge(self) -> adversarial.Adversary | None:
    """The discriminator; None without one, or without weights of its features."""
    found = self.adversary
    if found is None or found.features is None or 'adversary' in self.frozen:
      return found
    return None

  # ---------------------------------------------------------------- training

  def fresh(self, key: jax.Array) -> Any:
    image = jnp.zeros((1, *self.image_shape), jnp.float32)
    params = {'tokenizer': self._fresh(key, image)}
    judge = self.judge
    if judge is not None:
      other = jax.random.fold_in(key, 1)
      view = functools.partial(judge.view, self.frozen.get('adversary'))
      seen = jax.tree.map(jnp.zeros_like, jax.eval_shape(view, image))
      net = judge.net()
      params['discriminator'] = net.init(other, seen)['params']
    return params

  def _fresh(self, key, image):
    """The tokenizer's parameters at the start."""
    return self.tokenizer.init(key, image)['params']

  @property
  def optimizer(self) -> optax.GradientTransformation:
    return each({'tokenizer': self.tx, 'discriminator': self.tx})

  def averaged(self, params: Any) -> Any:
    return {'tokenizer': params['tokenizer']}

  def norms(self, gradient: Any) -> Metrics:
    return {
      f'gradient_norm/{k}': optax.tree.norm(g) for k, g in gradient.items()
    }

  def rows(self, state: TrainState, frozen: Frozen, batch: Batch) -> Batch:
    return {'image': batch['image']}

  def objective(
    self,
    params: Any,
    state: TrainState,
    frozen: Frozen,
    rows: Batch,
    draw: Draw,
  ) -> Objective:
    image = rows['image']
    # The ways back from the image and from what is paid for it are kept: the
    # adaptive weight compares gradients.
    _, to_params, out = jax.vjp(
      lambda p: self._reconstruct(p, image, draw),
      params['tokenizer'],
      has_aux=True,
    )

    def paid(x):
      terms = self._distances(frozen, image, x)
      return sum(t.scale * jnp.sum(t.loss) for t in terms.values()), terms

    _, to_image, terms = jax.vjp(paid, out.image, has_aux=True)
    terms |= self._own(out)
    found = Objective(
      terms,
      metrics={'psnr': Mean.of(losses.psnr(image, out.image)), **out.metrics},
      aux=self._codes(state, rows, out),
    )
    judge = self.judge
    if judge is None:
      return found

    def last_layer(gradient):
      # Of all gradients only this one is used, so the compiler drops the
      # rest of the way back.
      return _get(to_params(gradient)[0], self.tokenizer.last_layer_path)

    view = functools.partial(judge.view, frozen.get('adversary'), draw=draw)
    return discriminators.judged(
      judge,
      found,
      params['discriminator'],
      state,
      image,
      out.image,
      last_layer(to_image(jnp.float32(1))[0]),
      last_layer,
      view,
    )

  def _reconstruct(self, params, image, draw):
    """The image, and the whole `Reconstruction` beside it."""
    out: Reconstruction = self.tokenizer.apply(
      {'params': params},
      image,
      draw,
      train=True,
      rngs={'dropout': draw.key('task/dropout')},
    )
    return out.image, out

  def _own(self, out):
    """name -> term of the losses of the tokenizer's parts."""
    return {k: Term(x, scale=self.quantizer) for k, x in out.losses.items()}

  def _distances(self, frozen, image, other):
    """name -> term, a (b,) distance that the reconstruction is paid by."""
    terms = {
      'l1': Term(losses.l1(image, other), scale=self.l1),
      'l2': Term(losses.l2(image, other), scale=self.l2),
    }
    for name, measure in self.distances.items():
      key = f'distance/{name}'
      if key in frozen:
        each = measure(frozen[key], image, other)
        terms[key] = Term(each, scale=measure.weight)
    return terms

  # ------------------------------------------------------------------- codes

  @property
  def _scales(self) -> list[str]:
    return [f'scale_{h}x{w}' for h, w in self.tokenizer.spec.grids]

  def extra(self) -> dict[str, jax.Array]:
    """Average counts (scales, v), steps since the last use (v,), and more."""
    spec, more = self.tokenizer.spec, discriminators.extra(self.judge)
    if not spec.codes:
      return more
    return {
      'counts': jnp.zeros((len(spec.grids), spec.size), jnp.float32),
      'idle': jnp.zeros((spec.size,), jnp.int32),
      **more,
    }

  def _counts(self, codes):
    """(scales, v) how often each code occurs at each scale."""
    spec, start, rows = self.tokenizer.spec, 0, []
    for h, w in spec.grids:
      here = codes[:, start : start + h * w]
      rows.append(lookup.histogram(here, spec.size))
      start += h * w
    return jnp.stack(rows)

  def _codes(self, state, rows, out):
    """How often codes occur, and the latents that they may restart from."""
    if out.codes is None:
      return {}
    aux = {'counts': self._counts(out.codes)}
    if self.restart_after:
      # A place of the whole batch for every code, the same in all pieces.
      spec, size = self.tokenizer.spec, len(rows['row'])
      key = self.draw(state, jnp.arange(1)).key('task/restart')
      places = size * self.accumulate * spec.length
      chosen = jax.random.randint(key, (spec.size,), 0, places)
      aux['fresh'] = pick(out.features, chosen - rows['row'][0] * spec.length)
    return aux

  def after(
    self, state: TrainState, aux: dict[str, jax.Array]
  ) -> tuple[TrainState, Metrics]:
    """Usage metrics, and new latents for codes that nobody chooses."""
    state = discriminators.after(self.judge, state, aux, self.accumulate)
    if 'counts' not in aux:
      return state, {}
    counts = aux['counts']
    average = optax.incremental_update(
      counts, state.extra['counts'], 1 - _USAGE_DECAY
    )
    idle = jnp.where(jnp.sum(counts, 0) > 0, 0, state.extra['idle'] + 1)
    metrics = {}
    for name, row in zip(self._scales, average):
      metrics[f'usage/{name}'] = lookup.usage(row)
      metrics[f'perplexity/{name}'] = lookup.perplexity(row)
    if 'fresh' in aux:
      dead = idle >= self.restart_after
      metrics['restarted'] = jnp.sum(dead).astype(jnp.float32)
      idle = jnp.where(dead, 0, idle)
      path = ('tokenizer', *self.tokenizer.codebook_path)

      # A dead code has had no gradient for long, so its moments are zero. The
      # averages must move too: half an old code is no code.
      def restart(tree):
        codes = jnp.where(dead[:, None], aux['fresh'], _get(tree, path))
        return _put(tree, path, codes)

      state = state.replace(
        params=restart(state.params),
        ema={k: restart(v) for k, v in state.ema.items()},
      )
    extra = {**state.extra, 'counts': average, 'idle': idle}
    return state.replace(extra=extra), metrics

  # -------------------------------------------------------------- evaluation

  def _decoded(self, params, image):
    codec = self.tokenizer.bind({'params': params['tokenizer']})
    draw = Draw.create(self.seed, jnp.arange(image.shape[0]))
    return codec.decode(codec.encode(image), draw)

  def evaluate(
    self, params: Any, frozen: Frozen, batch: Batch
  ) -> dict[str, Metric]:
    image, weight = batch['image'], batch.get('weight', 1.0)
    other = self._decoded(params, image)
    terms = self._distances(frozen, image, other)
    terms = {k: t.replace(weight=weight) for k, t in terms.items()}
    psnr = Mean.of(losses.psnr(image, other), weight)
    return Objective(terms, metrics={'psnr': psnr}).measured

  def check(self, frozen: Frozen, batch: Batch) -> dict[str, jax.Array]:
    """What the tokenizer will see."""
    return {'images': batch['image']}

  def pictures(self, params: Any, frozen: Frozen, batch: Batch) -> dict:
    image = batch['image']
    return {
      'originals': image,
      'reconstructions': self._decoded(params, image),
    }


def each(
  transformations: dict[str, optax.GradientTransformation],
) -> optax.GradientTransformation:
  """An optimizer of its own for every network of {name: parameters}."""

  def init(params):
    return {k: transformations[k].init(p) for k, p in params.items()}

  def update(gradient, state, params):
    both = {
      k: transformations[k].update(g, state[k], params[k])
      for k, g in gradient.items()
    }
    return tuple({k: v[i] for k, v in both.items()} for i in range(2))

  return optax.GradientTransformation(init, update)


def pick(features: jax.Array, places: jax.Array) -> jax.Array:
  """(v, c) latents of some places (v,), zero where these lie elsewhere."""
  latents = jax.lax.stop_gradient(features).reshape(-1, features.shape[-1])
  here = (places >= 0) & (places < len(latents))
  return jnp.where(here[:, None], latents[places], 0.0)


def _get(tree, path):
  for key in path:
    tree = tree[key]
  return tree


def _put(tree, path, value):
  """A copy of nested dicts with another leaf."""
  if not path:
    return value
  return {**tree, path[0]: _put(tree[path[0]], path[1:], value)}
