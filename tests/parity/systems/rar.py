"""RAR: next token in random orders."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from arvision.build import build
from arvision.configs import common
from arvision.configs.rar import parts
from arvision.importers import rar as table
from arvision.model import sample
from arvision.process.guidance import guide
from arvision.random import Draw, Replay
from arvision.structs import Tokens
from arvision.tasks import assemble
from tests.parity.case import Case, Part, System, captured, imported

INPUTS = {'idx', 'label', 'orders', 'condition_id', 'none_condition_id'}


def config_of(case: Case) -> ConfigDict:
  """Our config of the official constructor's arguments, and its sampler."""
  args = case.args
  args.ignore('dropout', 'attn_drop', 'use_checkpoint')
  side = round(args['image_seq_len'] ** 0.5)
  used = args['image_seq_len'] + 2
  config = common.new()
  parts.rar(
    config,
    grid=(side, side),
    vocab_size=args['codebook_size'],
    classes=args['condition_num_classes'],
    depth=args['num_hidden_layers'],
    width=args['hidden_size'],
    heads=args['num_attention_heads'],
    hidden=args['intermediate_size'],
    dropout=0.0,
    temperature=0.0,
    spare_positions=args.get('pos_embed_rows', used + 1022) - used,
    spare_steps=args.get('timestep_rows', used + 98) - used,
  )
  backbone, epsilon = config.backbone, args.get('norm_eps', 1e-6)
  backbone.block.norm.epsilon = backbone.last_norm.norm.epsilon = epsilon
  if args.get('qk_norm', True):
    backbone.block.attention.logits.norm.epsilon = epsilon
  else:
    backbone.block.attention.logits = common.block(
      type='layers.attention.Scaled'
    )
  if not args.get('qkv_bias', True):
    backbone.block.attention.biases = ('out',)
  return config


def _set_sampler(config, run):
  """The sampler of a recorded call."""
  run.greedy()
  # The cache changes no number, and labels are an input.
  run.ignore('kv_cache', 'condition')
  config.sampler.guidance.update(
    # The official code guides with any scale but 0.
    scale=run['guidance_scale'] or 1.0,
    power=run['guidance_scale_pow'],
  )


def transformer(case: Case) -> Iterator[tuple[str, Any]]:
  io, config = case.io, config_of(case)
  model = assemble.make_model(config)
  shapes = assemble.model_shapes(model)
  params = imported(case, table.Transformer(), shapes)
  layout, batch = model.layout, len(io['label'])
  inputs = {'label': io['label']}
  # The official sequence has a row for the last token, which is not used.
  rows = np.s_[:, : layout.slots]
  predictions = np.s_[:, : layout.tokens]
  recorded = {'random': np.zeros(batch), 'order': io['orders']}
  orders = Replay(recorded, progress=0.0, size=batch)

  def permuted(model, codes, draw, null):
    slots, targets = model.feed.train(Tokens(codes), layout, None, draw)
    z, query = model.hidden(slots, inputs, null)
    return model.head.field(z, query), targets.values

  def logits(params, codes, draw, null):
    run = jax.jit(
      lambda p: model.apply({'params': p}, codes, draw, null, method=permuted)
    )
    return run(params)

  none, all_ = np.zeros(batch, bool), np.ones(batch, bool)
  seen = captured(model, params, io['idx'], orders, none, method=permuted)
  yield 'embed', Part(seen['embed'], rows)
  yield 'after_block0', Part(seen['blocks'][0], rows)
  yield 'after_last_block', Part(seen['blocks'][-1], rows)
  got, targets = logits(params, io['idx'], orders, none)
  yield 'logits', Part(got, predictions)
  yield 'labels_shuffled', targets
  loss = optax.softmax_cross_entropy_with_integer_labels(got, targets)
  yield 'loss', loss.mean()
  yield (
    'logits_uncond',
    Part(logits(params, io['idx'], orders, all_)[0], predictions),
  )
  raster = Draw.create(0, jnp.arange(batch))
  got, _ = logits(params, io['idx'], raster, none)
  yield 'logits_raster', Part(got, predictions)

  _set_sampler(config, case.generation)
  sampler = build(config.sampler, 'sampler')

  @jax.jit
  def generate(params):
    draw = Draw.create(0, jnp.arange(batch))
    return sample(model, params, sampler, inputs, draw).values

  codes = generate(params)
  yield 'gen_idx', codes
  steps = layout.steps
  scale = np.array([sampler.guidance(s, steps) for s in range(steps)])
  yield 'gen_cfg_scale_per_step', scale
  cond, _ = logits(params, codes, raster, none)
  null, _ = logits(params, codes, raster, all_)
  temperature = case.generation['randomize_temperature']
  yield 'gen_logits_cfg', guide(cond, null, scale[:, None]) / temperature


SYSTEMS = {
  'modeling.rar.RAR': System(transformer, INPUTS),
}
