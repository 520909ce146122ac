"""ReCAP: its MaskGIT, and its samplers for MaskGIT and MAR."""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from arvision.build import build
from arvision.configs import common
from arvision.configs.recap import parts
from arvision.importers import recap as table
from arvision.model import BoundModel
from arvision.random import Replay
from arvision.samplers.base import Network
from arvision.samplers.masked import Run
from arvision.tasks import assemble
from tests.parity.case import Case, System, captured, imported, no_null
from tests.parity.stated import NotCompared, Stated
from tests.parity.systems import mar

MASKGIT_INPUTS = {'tokens', 'label', 'cached_positions', 'query_positions'}
MASKGIT_INPUTS |= {
  f'{x}_{i}' for x in ('exponential', 'gumbel') for i in range(9)
}
MAR_INPUTS = {f'{x}_{i}' for x in ('orders', 'normals') for i in range(9)}

# Compiling takes a third less so.
jit = functools.partial(
  jax.jit,
  compiler_options={
    'xla_backend_optimization_level': 0,
    'xla_llvm_disable_expensive_passes': True,
  },
)


@flax.struct.dataclass
class Exponentials(Replay):
  """Recorded exponentials e: ids are the arg max of p / e.

  Attributes:
    log: takes the name and the logits of every draw.
  """

  log: Callable = flax.struct.field(pytree_node=False, default=None)

  def categorical(self, name, logits):
    note = lambda x: self.log((name.split('/')[1], np.asarray(x)))
    jax.debug.callback(note, logits, ordered=True)
    e = self._get(name, logits.shape[1:])
    return jnp.argmax(jax.nn.softmax(logits) / e, -1).astype(jnp.int32)


@dataclasses.dataclass(frozen=True)
class Noted:
  """A policy whose confidences are noted.

  Attributes:
    policy: the policy.
    log: takes a name and the confidences.
  """

  policy: Any
  log: Callable

  def __call__(self, *args):
    ids, sure = self.policy(*args)
    note = lambda x: self.log(('sure', np.asarray(x)))
    jax.debug.callback(note, sure, ordered=True)
    return ids, sure


@dataclasses.dataclass(frozen=True, eq=False)
class NotedModel(BoundModel):
  """A model whose head notes z, the tokens that it samples, and their values.

  Attributes:
    log: takes the three.
  """

  log: Callable = print

  def sample(self, z, draw, guide, sampling, query):
    found = super().sample(z, draw, guide, sampling, query)
    note = lambda *arrays: self.log([np.asarray(x) for x in arrays])
    jax.debug.callback(note, z, draw.position, found, ordered=True)
    return found


def runs_of(case: Case) -> list[Stated]:
  """The options of all recorded generations."""
  found = case.generation['runs']
  return [Stated(f'generation.runs.{i}', run) for i, run in enumerate(found)]


def all_read(run: Stated) -> None:
  """Refuses a run with options that were not read."""
  if run.unread:
    raise NotCompared(f'{", ".join(run.unread)}: not read by the driver')


def inputs_of(case: Case) -> dict[str, np.ndarray]:
  return {'label': np.asarray(case.generation['labels'], np.int32)}


def set_reuse(config: Any, run: Stated) -> None:
  """The groups of a recorded run; those of equal size share a program."""
  config.sampler.reuse = run['num_cache_iters']
  config.sampler.full_steps = run['pre_full_iters']
  config.sampler.buckets = 1


# MaskGIT


def _config(args):
  config = common.new()
  args.ignore('norm')
  parts.maskgit(
    config,
    grid=(args['img_size'], args['img_size']),
    vocab_size=args['codebook_size'],
    classes=args['num_classes'] - 1,
    depth=args['depth'] // 2 * 2,
    width=args['embed_dim'],
    heads=args['num_heads'],
    hidden=int(args.get('mlp_ratio', 4) * args['embed_dim']),
    skips=args.get('skip', True),
    biases=(
      ('q', 'k', 'v', 'out') if args.get('qkv_bias', False) else ('out',)
    ),
    steps=1,
    full_steps=0,
  )
  return config


def maskgit(case: Case) -> Iterator[tuple[str, Any]]:
  io, args = case.io, case.args
  config = _config(args)
  model = assemble.make_model(config)
  shapes = assemble.model_shapes(model)
  params = imported(case, table.Transformer(), shapes)
  vocab, batch = args['codebook_size'], len(io['tokens'])
  inputs = {'label': io['label'][:, 0]}
  values = np.where(io['tokens'] == vocab, -1, io['tokens'])
  bound = BoundModel(model, {'params': params})
  sampler = build(config.sampler, 'sampler')
  step = model.layout.runs[0].step(0)
  draw = Replay({}, size=batch)

  @jit
  def passes():
    network = Network(sampler, bound, inputs, batch)
    run = Run(network, bound.start(batch), None, step, draw)
    slots, query = sampler.slots(run, values), io['query_positions']
    cache = network.empty_cache(sampler.room(run, query.shape[1]))
    whole, cache = sampler.logits(run, slots, step.readout, 0, 0, cache, True)
    valid = jnp.ones(query.shape, bool)
    slots, readout = sampler.some(run, slots, jnp.asarray(query), valid)
    some, _ = sampler.logits(run, slots, readout, 0, 0, cache, False)
    return whole, some

  masked = values < 0
  slots = bound.feed_slots(np.where(masked, 0, values), step, masked)
  seen = captured(model, params, slots, inputs, no_null(batch), method='hidden')
  yield 'token_embedding', seen['embed'][:, 1:]
  yield 'after_block0', seen['blocks'][0]
  whole, some = passes()
  yield 'logits', whole
  yield 'local_logits', some
  for i, run in enumerate(runs_of(case)):
    yield from _maskgit_run(case, config, bound, i, run)


def _maskgit_run(case, config, bound, number, run):
  io = case.io
  set_reuse(config, run)
  config.sampler.steps = run['gen_step']
  policy = config.sampler.policy
  policy.temperature, policy.last = (
    float(run['conf_temp']),
    float(run['samp_temp']),
  )
  guidance = common.block(type='process.guidance.Constant', scale=1.0)
  if run['cfg']:
    # c + w (c - u), with w from 0.05 to 0.1.
    guidance = common.block(type='process.guidance.Linear', start=1.05, end=1.1)
  config.sampler.guidance = guidance
  all_read(run)
  sampler = build(config.sampler, 'sampler')
  steps, tokens = sampler.steps, bound.layout.tokens
  groups = sampler.groups_of(steps)
  counts = sampler.counts(tokens)[-1]
  yield f'schedule_tokens_{number}', -np.diff(counts)
  yield f'schedule_groups_{number}', np.array([size for _, size in groups])
  heats = [sampler.policy.heat(sampler.progress(i)) for i in range(steps)]
  yield f'schedule_samp_temp_{number}', np.array(heats)
  noise = [sampler.noise(g, len(groups)) for g in range(len(groups))]
  yield (
    f'schedule_conf_temp_{number}',
    sampler.policy.temperature * np.array(noise),
  )

  inputs, batch = inputs_of(case), len(case.generation['labels'])
  exponential = io[f'exponential_{number}']
  positions, row = io[f'gen_chosen_positions_{number}'], 0
  shape = (steps, batch, tokens, exponential.shape[-1])
  ranked, ids = np.ones(shape, np.float32), np.ones(shape, np.float32)
  gumbel = np.zeros((steps, batch, tokens), np.float32)
  chosen = []
  for g, (first, size) in enumerate(groups):
    gumbel[first] = io[f'gumbel_{number}'][g]
    ranked[first] = exponential[:, row : row + tokens]
    row += tokens
    stop = counts[first], counts[first + size]
    chosen.append(positions[:, tokens - stop[0] : tokens - stop[1]])
    for i in range(first, first + size):
      rows = exponential[:, row : row + stop[0] - stop[1]]
      np.put_along_axis(ids[i], chosen[-1][..., None], rows, 1)
      row += stop[0] - stop[1]
  log: list = []
  arrays = {'ranked': ranked, 'ids': ids, 'confidence': gumbel}
  draw = Exponentials(arrays, size=batch, log=log.append)
  recorded = Noted(sampler.policy, log.append)
  recording = dataclasses.replace(sampler, policy=recorded)
  found, _, masked = jit(lambda: recording.run(bound, inputs, draw, batch))()
  jax.effects_barrier()
  logits, ours, seen = [], [], iter(log)
  for (first, size), theirs in zip(groups, chosen):
    for i in range(size):
      (_, ranked), (_, own), (_, sure) = (next(seen) for _ in range(3))
      if not i:  # later steps of a group rank no more
        order = np.argsort(-np.where(masked[first], sure, -np.inf), 1, 'stable')
        ours.append(order[:, : theirs.shape[1]])
        logits.append(ranked)
      logits.append(np.take_along_axis(own, theirs[..., None], 1))
  yield f'gen_logits_{number}', np.concatenate(logits, 1)
  yield f'gen_chosen_positions_{number}', np.concatenate(ours, 1)
  yield f'gen_tokens_{number}', found.values


# MAR


class _Mar(Case):
  """The case, with the arguments that MAR's own constructor has."""

  @functools.cached_property
  def args(self):
    args = Stated('constructor', self.meta['constructor'])
    given = {k: args[k] for k in args if k not in _NAMES}
    for short, names in _NAMES.items():
      given |= dict.fromkeys(names, args[short])
    return Stated('constructor', {'diffusion_batch_mul': 1, **given})


_NAMES = {
  'width': ('encoder_embed_dim', 'decoder_embed_dim'),
  'depth': ('encoder_depth', 'decoder_depth'),
  'heads': ('encoder_num_heads', 'decoder_num_heads'),
  'dw': ('diffloss_w',),
  'dd': ('diffloss_d',),
}


def mar_sampling(case: Case) -> Iterator[tuple[str, Any]]:
  own = _Mar(case.folder)
  config, model, params = mar.loaded(own)
  runs = runs_of(case)
  first = float(runs[0]['diff_fast_ratio'])
  for i, run in enumerate(runs):
    yield from _mar_run(own, config, model, params, i, run, first)
  case.args.ignore(*(key for key in case.args if key not in own.args.unread))
  case.generation.ignore('runs', 'labels')


def _mar_run(case, config, model, params, number, run, share):
  io = case.io
  mar.set_sampler(config, run)
  config.sampler.update(
    type='samplers.recap.ReuseRandomOrder',
    share=float(run['diff_fast_ratio']),
    prefix_again=not run['cache_buffer'],
    least_masked=0,
    reuse=0,
    full_steps=0,
  )
  set_reuse(config, run)
  all_read(run)
  sampler = build(config.sampler, 'sampler')
  orders = io[f'orders_{number}']
  batch, tokens = orders.shape
  counts, groups = sampler.counts(tokens), sampler.groups_of(sampler.steps)
  rows_of, fast = [], []
  for first, size in groups:
    own = np.sort(orders[:, counts[first + size] : counts[first]], 1)
    for i in range(first, first + size):
      start = counts[first] - counts[i]
      rows_of.append(own[:, start : start + counts[i] - counts[i + 1]])
      fast.append(i > first)
  yield f'fast_{number}', np.array(fast)

  whole, normals = config.head.counts.first, io[f'normals_{number}']
  some = lambda share: max(1, int(whole * share))
  calls = [
    (rows, lambda share, short=short: some(share) if short else whole)
    for rows, short in zip(rows_of, fast)
  ]
  total = lambda share: sum(r.size * (1 + n(share)) for r, n in calls)
  if total(sampler.share) != len(normals):
    # An official model keeps the fast diffusion of its first run.
    sampler = dataclasses.replace(sampler, share=share)
  channels = model.head.channels
  shape = (sampler.steps, whole + 1, batch, tokens, channels)
  noise = np.zeros(shape, np.float32)
  for i, (rows, steps) in enumerate(calls):
    for k in range(steps(sampler.share) + 1):
      own, normals = normals[: rows.size], normals[rows.size :]
      own = own.reshape(*rows.shape, channels)
      np.put_along_axis(noise[i, k], rows[..., None], own, 1)
  log: list = []
  draw = Replay({'order': orders, 'noise': noise}, size=batch)

  @jit
  def generate(params):
    codec, note = mar.codec_of(case), log.append
    bound = NotedModel(model, {'params': params}, codec, note)
    return sampler.run(bound, inputs_of(case), draw, batch)[0]

  values = generate(params).values
  jax.effects_barrier()
  z, latents = [], []
  for (seen, place, drawn), rows in zip(log, rows_of):
    # Padding comes last.
    order = np.argsort(place[:, : rows.shape[1]], 1)[..., None]
    pick = lambda x, order=order: np.take_along_axis(x, order, 1)
    z.append(pick(seen[:batch, :, 0]).reshape(-1, seen.shape[-1]))
    latents.append(pick(drawn).reshape(-1, channels))
  yield f'rows_per_call_{number}', np.array([len(x) for x in latents])
  yield f'gen_z_{number}', np.concatenate(z)
  yield f'gen_latents_{number}', np.concatenate(latents)
  yield f'gen_tokens_{number}', mar.latents(case, values)


SYSTEMS = {
  'models.uvit.UViT (MaskGIT+ReCAP)': System(maskgit, MASKGIT_INPUTS),
  'models.mar.MAR (MAR+ReCAP)': System(mar_sampling, MAR_INPUTS),
}
