"""Training a tokenizer: reconstruction, codes, perception, discriminator."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax
from absl import logging

from arvision.build import ConfigError
from arvision.ranges import AtLeast0, Below1, Count, Natural, Seed
from arvision.structs import Draw, Reconstruction, Template
from arvision.tasks.base import (
  Batch,
  Metrics,
  TrainState,
  accumulate,
  start_ema,
  update_ema,
)
from arvision.tokenizers import (
  adversarial,
  losses,
  perceptual,
  quantizers,
)

_USAGE_DECAY = 0.99


@dataclasses.dataclass(frozen=True, eq=False)
class TrainTokenizer:
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
    image_shape: (H, W, C).
    l1: weight of the mean absolute difference.
    l2: weight of the mean squared difference.
    perceptual: weight of LPIPS; without weight files it is off.
    perceptual_weights: file or files for `tokenizers.perceptual.read`.
    discriminator: template of one, None for none.
    discriminator_tx: its optimizer; None: the same recipe as `tx`.
    adversarial: weight of the discriminator's opinion.
    adversarial_start: step at which both networks start to feel it.
    adaptive_limits: None for a fixed weight; (low, high): the weight is
      multiplied by the ratio of the gradients at the decoder's last layer,
      clipped to these limits.
    restart_after: steps without use until a code is restarted; 0 is never.
    fixed: parts of the tokenizer that are not trained, as their parameters are
      called; exempt them from weight decay too.
    ema: decays of the running averages.
    ema_warmup: whether they warm up, see `update_ema`.
    accumulate: pieces that a step is cut into.
    seed: of every draw.
    frozen: {'perceptual': weights}, read from the files where not given.

  Raises:
    ConfigError: weights that cannot be read, images too small for LPIPS.
  """

  tokenizer: Any
  tx: optax.GradientTransformation
  image_shape: tuple[int, int, int]
  l1: AtLeast0 = 0.0
  l2: AtLeast0 = 1.0
  perceptual: AtLeast0 = 0.0
  perceptual_weights: str | tuple[str, ...] = ()
  discriminator: Template | None = None
  discriminator_tx: optax.GradientTransformation | None = None
  adversarial: AtLeast0 = 0.5
  adversarial_start: Natural = 0
  adaptive_limits: tuple[AtLeast0, AtLeast0] | None = None
  restart_after: Natural = 0
  fixed: tuple[str, ...] = ()
  ema: tuple[Below1, ...] = (0.999,)
  ema_warmup: bool = False
  accumulate: Count = 1
  seed: Seed = 0
  frozen: dict[str, Any] = dataclasses.field(default_factory=dict)

  def __post_init__(self):
    if not self.perceptual or 'perceptual' in self.frozen:
      return
    paths = self.perceptual_weights
    paths = (paths,) if isinstance(paths, str) and paths else tuple(paths)
    if not paths:
      logging.warning(
        'The perceptual loss is OFF: config.task.perceptual is %g but '
        'config.task.perceptual_weights names no file.',
        self.perceptual,
      )
      return
    if min(self.image_shape[:2]) < perceptual.SMALLEST_IMAGE:
      raise ConfigError(
        f'LPIPS needs images of at least {perceptual.SMALLEST_IMAGE} px, got '
        f'{self.image_shape[:2]}; set config.task.perceptual=0'
      )
    self.frozen['perceptual'] = perceptual.read(paths)

  # ---------------------------------------------------------------- training

  def init(self, key: jax.Array) -> TrainState:
    image = jnp.zeros((1, *self.image_shape), jnp.float32)
    params = {'tokenizer': self._fresh(key, image)}
    if self.discriminator is not None:
      other = jax.random.fold_in(key, 1)
      net = self.discriminator()
      params['discriminator'] = net.init(other, image)['params']
    return TrainState(
      step=jnp.zeros((), jnp.int32),
      params=params,
      opt_state={k: self._tx(k).init(v) for k, v in params.items()},
      ema=start_ema({'tokenizer': params['tokenizer']}, self.ema),
      extra=self._no_usage(),
      frozen=self.frozen,
    )

  def _fresh(self, key, image):
    """The tokenizer's parameters at the start."""
    return self.tokenizer.init(key, image)['params']

  def step(self, state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
    rows = {
      'image': batch['image'],
      'row': jnp.arange(batch['image'].shape[0]),
    }
    draw = Draw.create(self.seed, rows['row'], state.step)
    chosen = self._chosen(draw)

    def loss(params, part, piece):
      draw = Draw.create(self.seed, part['row'], state.step)
      return self._loss(params, state, part['image'], draw, chosen, piece)

    gradient, metrics = accumulate(loss, state.params, rows, self.accumulate)
    arrays = {k: metrics.pop(k) for k in ('counts', 'fresh') if k in metrics}
    params, opt_state = {}, {}
    for name, g in gradient.items():
      before = state.params[name]
      updates, opt_state[name] = self._tx(name).update(
        g, state.opt_state[name], before
      )
      params[name] = optax.apply_updates(before, updates)
      metrics[f'gradient_norm/{name}'] = optax.tree.norm(g)
    state = state.replace(
      step=state.step + 1,
      params=params,
      opt_state=opt_state,
      ema=update_ema(
        state.ema,
        {'tokenizer': params['tokenizer']},
        state.step if self.ema_warmup else None,
      ),
    )
    if arrays:
      # `accumulate` has divided these sums by the number of examples.
      arrays = {k: v * len(rows['row']) for k, v in arrays.items()}
      state, used = self._account(state, **arrays)
      metrics |= used
    return state, metrics

  def _loss(self, params, state, image, draw, chosen, piece):
    """(Σ loss, (examples, sums of metrics)) of one piece of the batch."""
    size = image.shape[0]
    # The ways back from the image and from what is paid for it are kept: the
    # adaptive weight compares gradients.
    _, to_params, out = jax.vjp(
      lambda p: self._reconstruct(p, image, draw),
      params['tokenizer'],
      has_aux=True,
    )
    total, to_image, metrics = jax.vjp(
      lambda x: self._paid(state, image, x), out.image, has_aux=True
    )
    for name, value in out.losses.items():
      metrics[name] = size * value
      total += size * value
    hinge = jnp.float32(0)
    if self.discriminator is not None:

      def last_layer(gradient):
        # Of all gradients only this one is used, so the compiler drops the
        # rest of the way back.
        return _get(to_params(gradient)[0], self.tokenizer.last_layer_path)

      paid = last_layer(to_image(jnp.float32(1))[0])
      opinion, hinge, more = self._adversarial(
        params['discriminator'], state.step, image, out.image, paid, last_layer
      )
      total += opinion
      metrics |= more
    metrics |= {'loss': total, 'psnr': jnp.sum(losses.psnr(image, out.image))}
    if out.codes is not None:
      metrics['counts'] = self._counts(out.codes)
      if self.restart_after:
        metrics['fresh'] = pick(out.features, chosen, piece)
    return total + hinge, (jnp.float32(size), metrics)

  def _reconstruct(self, params, image, draw):
    """The image, and the whole `Reconstruction` beside it."""
    still = {k: jax.lax.stop_gradient(params[k]) for k in self.fixed}
    params = {**params, **still}
    out: Reconstruction = self.tokenizer.apply(
      {'params': params},
      image,
      draw,
      train=True,
      rngs={'dropout': draw.key('task/dropout')},
    )
    return out.image, out

  def _distances(self, state, image, other):
    """name -> (weight, (b,) distance) of what the reconstruction is paid by."""
    terms = {
      'l1': (self.l1, losses.l1(image, other)),
      'l2': (self.l2, losses.l2(image, other)),
    }
    if 'perceptual' in state.frozen:
      distance = perceptual.lpips(state.frozen['perceptual'], image, other)
      terms['lpips'] = (self.perceptual, distance)
    return terms

  def _paid(self, state, image, other):
    """Σ weight x distance over the batch, and the sums of the distances."""
    terms = self._distances(state, image, other)
    total = sum(weight * jnp.sum(x) for weight, x in terms.values())
    return total, {k: jnp.sum(x) for k, (_, x) in terms.items()}

  def _adversarial(self, params, step, image, other, paid, last_layer):
    """The opinion on the reconstructions, the hinge loss, and metrics.

    Args:
      params: of the discriminator.
      step: of the run.
      image: (b, H, W, C).
      other: its reconstruction.
      paid: gradient of the reconstruction loss at the last layer.
      last_layer: gradient at the image -> gradient at the last layer.
    """
    net, size = self.discriminator(), image.shape[0]
    on = (step >= self.adversarial_start).astype(jnp.float32)

    def opinion(x):
      judge = {'params': jax.lax.stop_gradient(params)}
      return jnp.sum(adversarial.generator(net.apply(judge, x)))

    fake, to_image = jax.vjp(opinion, other)
    weight = on * self.adversarial
    if self.adaptive_limits is not None:
      gradient = last_layer(to_image(jnp.float32(1))[0])
      weight *= adversarial.balance(paid, gradient, self.adaptive_limits)
    logits = (
      net.apply({'params': params}, x)
      for x in (image, jax.lax.stop_gradient(other))
    )
    hinge = on * jnp.sum(adversarial.hinge(*logits))
    metrics = {
      'generator': fake,
      'discriminator': hinge,
      'adversarial_weight': size * weight,
    }
    return weight * fake, hinge, metrics

  def _tx(self, name):
    if name == 'discriminator' and self.discriminator_tx is not None:
      return self.discriminator_tx
    return self.tx

  # ------------------------------------------------------------------- codes

  @property
  def _scales(self) -> list[str]:
    return [f'scale_{h}x{w}' for h, w in self.tokenizer.spec.grids]

  def _no_usage(self):
    """Average counts (scales, v), and steps since the last use (v,)."""
    spec = self.tokenizer.spec
    if not spec.codes:
      return {}
    return {
      'counts': jnp.zeros((len(spec.grids), spec.size), jnp.float32),
      'idle': jnp.zeros((spec.size,), jnp.int32),
    }

  def _counts(self, codes):
    """(scales, v) how often each code occurs at each scale."""
    spec, start, rows = self.tokenizer.spec, 0, []
    for h, w in spec.grids:
      here = codes[:, start : start + h * w]
      rows.append(quantizers.histogram(here, spec.size))
      start += h * w
    return jnp.stack(rows)

  def _chosen(self, draw):
    """For every code a place of the whole batch: (v,) int32."""
    spec = self.tokenizer.spec
    if not self.restart_after or not spec.codes:
      return None
    places = draw.batch // self.accumulate * spec.length
    key = draw.key('task/restart')
    piece_and_place = jax.random.randint(
      key, (spec.size,), 0, self.accumulate * places
    )
    return piece_and_place // places, piece_and_place % places

  def _account(self, state, counts, fresh=None):
    """Usage metrics, and new places for codes that nobody chooses."""
    average = optax.incremental_update(
      counts, state.extra['counts'], 1 - _USAGE_DECAY
    )
    idle = jnp.where(jnp.sum(counts, 0) > 0, 0, state.extra['idle'] + 1)
    metrics = {}
    for name, row in zip(self._scales, average):
      metrics[f'usage/{name}'] = quantizers.usage(row)
      metrics[f'perplexity/{name}'] = quantizers.perplexity(row)
    if fresh is not None:
      dead = idle >= self.restart_after
      metrics['restarted'] = jnp.sum(dead).astype(jnp.float32)
      idle = jnp.where(dead, 0, idle)
      path = ('tokenizer', *self.tokenizer.codebook_path)

      # A dead code has had no gradient for long, so its moments are zero. The
      # averages must move too: half an old code is no code.
      def restart(tree):
        codes = jnp.where(dead[:, None], fresh, _get(tree, path))
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
    return codec.decode(codec.encode(image))

  def evaluate(self, state: TrainState, params: Any, batch: Batch) -> Metrics:
    image = batch['image']
    weight = batch.get('weight', jnp.ones(image.shape[0], jnp.float32))
    other = self._decoded(params, image)
    terms = self._distances(state, image, other)
    sums = {k: jnp.sum(weight * x) for k, (_, x) in terms.items()}
    sums['loss'] = jnp.sum(weight * sum(w * x for w, x in terms.values()))
    sums['psnr'] = jnp.sum(weight * losses.psnr(image, other))
    return {**sums, 'weight': jnp.sum(weight)}

  def check(self, state: TrainState, batch: Batch) -> dict[str, jax.Array]:
    """What the tokenizer will see."""
    return {'images': batch['image']}

  def pictures(self, state: TrainState, params: Any, batch: Batch) -> dict:
    image = batch['image']
    return {
      'originals': image,
      'reconstructions': self._decoded(params, image),
    }


def pick(features, chosen, piece):
  """(v, c) latents of the chosen places, zero where in another piece."""
  owner, place = chosen
  rows = jax.lax.stop_gradient(features).reshape(-1, features.shape[-1])
  return jnp.where((owner == piece)[:, None], rows[place], 0.0)


def _get(tree, path):
  for key in path:
    tree = tree[key]
  return tree


def _put(tree, path, value):
  """A copy of nested dicts with another leaf."""
  if not path:
    return value
  return {**tree, path[0]: _put(tree[path[0]], path[1:], value)}
