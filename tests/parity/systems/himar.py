"""Hi-MAR: pivots by an MLP, then dense tokens by a transformer."""

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from arvision.backbones.stages import Recalled
from arvision.build import build
from arvision.configs import common
from arvision.configs.himar import parts
from arvision.heads.diffusion import waves
from arvision.importers import himar as table
from arvision.layers.stack import unstack
from arvision.metrics import Term
from arvision.model import BoundModel
from arvision.process import diffusion
from arvision.random import Replay
from arvision.samplers.base import Network
from arvision.samplers.stages import Recalled as Pivots
from arvision.structs import Query, Tokens
from arvision.tasks import assemble
from tests.parity.case import Case, Part, System, captured, imported, nchw
from tests.parity.systems import mar

INPUTS = {
  'latent',
  'small_latent',
  'label',
  'orders',
  'net1_x',
  'net1_t',
  'net1_c',
  'net2_x',
  'net2_t',
  'loss1_t',
  'loss1_noise',
  'loss2_t',
  'loss2_noise',
  'gen_noise_stage1',
  'gen_noise_stage2',
}


def config_of(case: Case) -> ConfigDict:
  """Our config of the official constructor's arguments."""
  args, run = case.args, case.generation
  sizes = mar.sizes_of(args)
  side, pivots = sizes.pop('grid')[0], args['cond_scale']
  second = sizes.pop('second')
  del sizes['biases']
  args.only(
    patch_size=1,
    qkv_bias=True,
    decoder_embed_dim=sizes['width'],
    cond_dim=args['vae_embed_dim'],
    head2_input_size=side,
  )
  config = common.new()
  parts.himar(
    config,
    scales=(pivots, side),
    channels=args['vae_embed_dim'],
    head_width=args['diffloss_w'],
    head_depth=args['diffloss_d'],
    dense_width=args['gdm_w'],
    dense_depth=args['gdm_d'],
    dense_heads=args['head'],
    dense_ratio=args['ratio'],
    repeats=args['diffusion_batch_mul'],
    diffusion_steps=int(args['num_sampling_steps']),
    dense_diffusion_steps=run['stage2_diffusion_steps'],
    **sizes,
  )
  if second['heads'] != sizes['heads']:
    config.backbone.body.heads = second['heads']
  config.feed.first.lowest = args.get('mask_ratio_min', 0.7)
  mar.set_epsilon(config, args)
  _set_sampler(config, run)
  return config


def _set_sampler(config, run):
  """The sampler of the recorded call."""
  run.says('kind', 'replay')
  sampler, head = config.sampler, config.head
  mar.set_sampler(config, run)
  sampler.first_guidance = sampler.guidance.copy_and_resolve_references()
  key = 'end' if 'end' in sampler.guidance else 'scale'
  sampler.first_guidance[key] = float(run['re_cfg'])
  run.only(
    stage1_iterations=sampler.first_steps,
    stage1_diffusion_steps=head.first.counts.first,
  )


def transformer(case: Case) -> Iterator[tuple[str, Any]]:
  io, config = case.io, config_of(case)
  model = assemble.make_model(config)
  # Recorded with fewer masked pivots than there are in training.
  first = dataclasses.replace(model.feed.first, lowest=0.0)
  model = model.clone(feed=dataclasses.replace(model.feed, first=first))
  layout, side = model.layout, config.layout.scales[-1]
  values = np.concatenate(
    [mar.rows(io[name]) for name in ('small_latent', 'latent')], 1
  )
  tokenizer = mar.kl16(channels=values.shape[-1], scale=1.0)
  parts.pyramid(tokenizer, config.layout.scales)
  codec = assemble.make_tokenizer(common.block(tokenizer=tokenizer)).bind({})
  shapes = assemble.model_shapes(model, tokens=Tokens(values[:1]))
  params = imported(case, table.Transformer(), shapes)
  batch, inputs = len(io['label']), {'label': io['label']}
  width = config.head.later.width
  yield 'head_pos_embed_sincos', waves((side, side), width)[None]
  count = layout.grids[0][0] ** 2
  yield 'small_tokens', values[:, :count]
  yield 'tokens', values[:, count:]

  arrays = _draws(model, io, count)
  draw = Replay(arrays, size=batch)
  slots, targets = jax.jit(
    lambda: model.feed.train(Tokens(values), layout, codec, draw)
  )()
  every = layout.prefix + np.arange(layout.tokens)
  stage = layout.prefix + layout.tokens
  masks = [slots.masked[:, every + s * stage] for s in range(2)]
  for s, mask in enumerate(masks):
    yield f'mask_stage{s + 1}', np.float32(mask)

  def read(model, s, cache, null=False, recalled=True):
    """A stage: z of all tokens, and what is recalled of it."""
    step = layout.runs[s].step(0)
    own = model.feed.slots(values, step, layout, codec, np.asarray(masks[s]))
    if not recalled:
      own = own.replace(recall=None)
    cond = model.conditions(inputs, jnp.full((batch,), null), own)
    return model.read(own, cond, cache, every[:, None])

  def run(f, *args):
    program = lambda p, *a: model.apply({'params': p}, *a, method=f)
    return jax.jit(program)(params, *args)

  def z_of(s, cache, **options):
    found = run(lambda model, cache: read(model, s, cache, **options), cache)
    return found[0][:, :, 0]

  empty = model.backbone.empty_cache(batch, layout)
  zs = []
  for s in range(2):
    cache = empty
    if s:  # recorded with those of all pivots, masked or not
      known = jnp.ones((batch, count), bool)
      cache = Recalled(zs[0][:, :count], known)
    seen = captured(model, params, s, cache, method=read)
    first = seen['modules']['backbone']['norm_first']['__call__'][0]
    visible = io[f'encoder{s + 1}'].shape[
      1
    ]  # behind them are those that fill up
    yield f'encoder_block0_stage{s + 1}', seen['blocks'][0][:, :visible]
    yield f'encoder{s + 1}', first[:, :visible]
    if not s:
      yield 'decoder_block0_stage1', seen['stack_second'][0]
    zs.append(z_of(s, cache))
    yield f'z{s + 1}', zs[s]
  yield 'z2_from_small_latent', z_of(1, empty, recalled=False)
  yield 'z1_uncond', z_of(0, empty, null=True)
  zs = [z[:, :, None] for z in zs]
  yield from _heads(case, model, run, zs[1][:, count:])

  entity = layout.entity_of_token
  found = []
  for s, z in enumerate(zs):
    at = np.flatnonzero(entity == s)
    query = Query(
      entity=entity[at], coords=layout.coords[layout.readout[at, 0]]
    )
    loss = run(
      lambda m, z, s=s, at=at, query=query: m.head.of(s).loss(
        z, values[:, at], draw.fold(s), query
      )[0],
      z[:, at],
    )
    weight = targets.weight[:, at] / model.feed.weights[s]
    found.append(Term(loss, weight, jnp.full(loss.shape, 1 / len(at))).mean)
  yield 'loss1', found[0].compute()
  yield 'loss2', found[1].compute()

  def terms(model, z):
    query = Query(entity=entity[:count])
    return model.head.of(0).terms(z, values[:, :count], draw.fold(0), query)

  both = sum(run(terms, zs[0][:, :count]))
  yield 'loss1_terms', np.moveaxis(np.asarray(both), 1, 0).ravel()
  yield from _generation(case, config, model, params, codec)


def _draws(model, io, count):
  """What feed and heads draw in a step, of both stages."""
  orders = io['orders']
  own = orders[:, :count], orders[:, count:] - count
  hidden = [
    int(io[f'mask_stage{s + 1}'][0, at].sum())
    for s, at in enumerate((np.s_[:count], np.s_[count:]))
  ]
  later = np.arccos((hidden[1] - 0.5) / own[1].shape[1]) / (np.pi / 2)
  times = mar.as_uniform(io['loss2_t'])
  noise = mar.rows(io['loss2_noise'])
  batch = len(orders)
  each = lambda x: np.moveaxis(x.reshape(-1, batch, *x.shape[1:]), 0, 1)
  return {
    'order': own,
    'share': (
      mar.share_of(model.feed.first, hidden[0], own[0]),
      np.full(batch, later, np.float32),
    ),
    'time': (
      mar.repeated(mar.as_uniform(io['loss1_t']), own[0]),
      each(times),
    ),
    'noise': (mar.repeated(io['loss1_noise'], own[0]), each(noise)),
    'recall': np.zeros(batch, np.float32),
  }


def _heads(case, model, run, z):
  """Both heads by themselves, and their noise schedules."""
  io = case.io
  for number, part in enumerate((model.head.first, model.head.later), 1):
    counts = part.keywords['counts']
    spaced = diffusion.sample_table(counts(0, 1))
    yield f'gen{number}_timestep_map', spaced.times
    yield f'gen{number}_betas', spaced.betas

  def field(model, z, x, times, s):
    entity = np.full(x.shape[1], s)
    query = Query(values=x, level=times[:, None], entity=entity)
    return model.head.of(s).field(z, query)

  first, second = (functools.partial(field, s=s) for s in range(2))
  x = io['net1_x'][:, None]
  out = run(first, io['net1_c'][:, None, None], x, io['net1_t'])
  yield 'net1_out', out.reshape(len(x), -1)
  x = mar.rows(io['net2_x'])
  out = run(second, z, x, io['net2_t'])[..., 0, :]
  yield 'net2_out', latents(out)


def latents(values: Any) -> np.ndarray:
  """(..., t, c) of a square -> (..., c, h, w)."""
  side = round(values.shape[-2] ** 0.5)
  return nchw(np.reshape(values, (*values.shape[:-2], side, side, -1)))


def _generation(case, config, model, params, codec):
  """A replay of the recorded orders and noise."""
  io, layout = case.io, model.layout
  sampler = build(config.sampler, 'sampler')
  count = layout.grids[0][0] ** 2
  batch, orders = len(io['label']), io['orders']
  noise = io['gen_noise_stage1'], mar.rows(io['gen_noise_stage2'])
  arrays = {
    'order': (orders[:, :count], orders[:, count:] - count),
    'noise': noise,
  }

  @jax.jit
  def generate(params):
    bound = BoundModel(model, {'params': unstack(params)}, codec)
    draw = Replay(arrays, size=batch)
    network = Network(sampler, bound, {'label': io['label']}, batch)
    state, cache = bound.start(batch), network.empty_cache()
    for s, run in enumerate(layout.runs):
      step = run.step(0)
      state, cache, trace = sampler.within(
        network, state, cache, step, draw.fold(s), None, None
      )
    # What the dense head samples at every step, tokens that are dropped too.
    left, found = sampler.counts(len(step.tokens)), []
    for i, (before, masked) in enumerate(zip(*trace)):
      slots = bound.feed_slots(before, step, masked)
      scale = lambda level, i=i: sampler.scale(left[i + 1], left[0], level)
      z, merge, _ = network.look(slots, step.readout, scale, cache, False)
      query = Query(
        values=before[:, step.tokens],
        masked=masked[:, step.tokens],
        entity=layout.entity_of_token[step.tokens],
      )
      own = draw.fold(1).fold(i)
      found.append(bound.sample(z, own, merge, sampler.logits_filter, query))
    return state, jnp.stack(found, 1)

  values, samples = generate(params)
  yield 'gen_small', latents(values[:, :count])
  yield 'gen', latents(values[:, count:])
  yield 'gen_stage2_samples', latents(samples)
  pivots = Pivots(sampler.first_guidance, steps=sampler.first_steps)
  stages = (pivots, count), (sampler, layout.tokens - count)
  for s, (part, tokens) in enumerate(stages, 1):
    left = np.array(part.counts(tokens)[1:])
    # The last step samples all that is left, and leaves none of it.
    yield f'gen_mask_len_stage{s}', Part(left[:-1], np.s_[:-1])
    scales = [float(part.scale(n, tokens)) for n in left]
    yield f'gen_cfg_stage{s}', np.array(scales)


SYSTEMS = {
  'models.himar.HiMAR': System(transformer, INPUTS),
}
