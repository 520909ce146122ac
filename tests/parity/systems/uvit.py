"""The generator of TiTok-S-128."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from arvision.build import build
from arvision.configs import common
from arvision.configs.titok import parts
from arvision.importers import titok as table
from arvision.model import BoundModel
from arvision.random import Draw
from arvision.tasks import assemble
from tests.parity.case import Case, System, imported

INPUTS = {'idx', 'label'}


def transformer(case: Case) -> Iterator[tuple[str, Any]]:
  io, args, run = case.io, case.args, case.generation
  batch, vocab = len(io['label']), args['codebook_size']
  config = _config(args)
  model = assemble.make_model(config)
  shapes = assemble.model_shapes(model)
  params = imported(case, table.Generator(), shapes)
  bound = BoundModel(model, {'params': params})
  inputs = {'label': io['label']}

  @jax.jit
  def logits(values, null):
    mask = values == vocab
    step = model.layout.runs[0].step(0)
    slots = bound.feed_slots(jnp.where(mask, 0, values), step, mask)
    cond = bound.condition(inputs, null)
    z, _ = bound.read(slots, cond, None, model.layout.readout)
    return bound.field(z, bound.query(slots, model.layout.readout))

  yield 'logits', logits(io['idx'], np.zeros(batch, bool))
  yield 'logits_uncond', logits(io['idx'], np.ones(batch, bool))

  _set_sampler(config, run)
  sampler = build(config.sampler, 'sampler')
  draw = Draw.create(0, jnp.arange(batch))
  generate = jax.jit(lambda: sampler.run(bound, inputs, draw, batch))
  tokens, ids, mask = generate()
  yield 'gen_idx', tokens.values
  # The official network is called twice where it is guided.
  scale, decay = run['guidance_scale'], run['guidance_decay']
  ids = np.where(mask, vocab, ids)
  calls = []
  for i, row in enumerate(ids):
    once = decay != 'power-cosine' and (
      not scale or decay == 'linear' and not i
    )
    calls += [row] * (1 if once else 2)
  yield 'gen_idx_history', np.stack(calls, 1)


def _config(args):
  args.ignore('dropout', 'attn_drop')
  config, none = common.new(), common.block(type='process.guidance.Constant')
  parts.uvit(
    config,
    grid=(1, args['image_seq_len']),
    vocab_size=args['codebook_size'],
    classes=args['condition_num_classes'],
    # The official class has half of the layers before and after the middle.
    depth=args['num_hidden_layers'] // 2 * 2,
    width=args['hidden_size'],
    heads=args['num_attention_heads'],
    hidden=args['intermediate_size'],
    steps=1,
    temperature=0.0,
    guidance=none,
  )
  return config


def _set_sampler(config, run):
  """The sampler of a recorded call."""
  run.greedy()
  run.only(randomize_temperature=0)
  # A temperature for all logits of a step changes no order of theirs.
  run.ignore('softmax_temperature_annealing')
  config.sampler.steps = run['num_sample_steps']
  config.sampler.logits_filter.temperature = 0.0
  config.sampler.guidance = _guidance(run)


def _guidance(run) -> ConfigDict:
  """Where it decays as a power of a cosine, null + s (c - null), else c + s ..."""
  scale, decay = run['guidance_scale'], run['guidance_decay']
  run.ignore('guidance_scale_pow')  # of the third alone
  if decay == 'constant':
    return common.block(type='process.guidance.Constant', scale=1.0 + scale)
  if decay == 'linear':
    return common.block(
      type='process.guidance.Linear',
      end=1.0 + scale,
      over=run['num_sample_steps'],
    )
  if decay != 'power-cosine':
    raise run.refused('guidance_decay', 'an unknown schedule')
  return common.block(
    type='process.guidance.PowerCosine',
    scale=float(scale),
    power=float(run['guidance_scale_pow']),
  )


SYSTEMS = {
  'modeling.maskgit.UViTBert': System(transformer, INPUTS),
}
