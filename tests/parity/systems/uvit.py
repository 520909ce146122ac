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
from arvision.structs import Draw
from arvision.tasks import assemble
from tests.parity.case import Case, imported

INPUTS = {'idx', 'label'}


def transformer(case: Case) -> Iterator[tuple[str, Any]]:
  io, args, call = case.io, case.args, case.call
  batch, vocab = len(io['label']), args['codebook_size']
  config = _config(args, call)
  model = assemble.make_model(config)
  shapes = assemble.model_shapes(model)
  params = imported(case, table.Generator(), shapes)
  bound = BoundModel(model, {'params': params})
  inputs = {'label': io['label']}

  @jax.jit
  def logits(values, null):
    hole = values == vocab
    slots = bound.shown(jnp.where(hole, 0, values), hole)
    cond = bound.condition(inputs, null)
    z, _ = bound.read(slots, cond, None, model.layout.readout)
    return bound.field(z, slots)

  yield 'logits', logits(io['idx'], np.zeros(batch, bool))
  yield 'logits_uncond', logits(io['idx'], np.ones(batch, bool))

  if call.get('randomize_temperature'):
    raise NotImplementedError('generation with random noise')
  sampler = build(config.sampler, 'sampler')
  draw = Draw.create(0, jnp.arange(batch))
  run = jax.jit(lambda: sampler.run(bound, inputs, draw, batch))
  tokens, shown, hole = run()
  yield 'gen_idx', tokens.values
  # The official network is called twice where it is guided.
  linear = call.get('guidance_decay') == 'linear'
  shown = np.where(hole, vocab, shown)
  calls = [
    row
    for i, row in enumerate(shown)
    for _ in range(1 if linear and not i else 2)
  ]
  yield 'gen_idx_history', np.stack(calls, 1)


def _config(args, call):
  steps = call['num_sample_steps']
  config = common.new()
  parts.uvit(
    config,
    grid=(1, args['image_seq_len']),
    vocab_size=args['codebook_size'],
    classes=args['condition_num_classes'],
    depth=args['num_hidden_layers'],
    width=args['hidden_size'],
    heads=args['num_attention_heads'],
    hidden=args['intermediate_size'],
    steps=steps,
    temperature=0.0,
    guidance=_guidance(call, steps),
  )
  config.sampler.choice.temperature = 0.0
  return config


def _guidance(call, steps) -> ConfigDict:
  """Where it decays as a power of a cosine, null + s (c - null), else c + s ..."""
  scale, decay = call['guidance_scale'], call['guidance_decay']
  if decay == 'constant':
    return common.block(type='process.guidance.Constant', scale=1 + scale)
  if decay == 'linear':
    return common.block(
      type='process.guidance.Linear', end=1 + scale, over=steps
    )
  return common.block(
    type='process.guidance.PowerCosine',
    scale=scale,
    power=call['guidance_scale_pow'],
  )
