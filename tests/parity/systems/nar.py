"""NAR: LlamaGen's network with two branches, diagonal by diagonal."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from arvision.build import build
from arvision.configs.nar import parts
from arvision.importers import nar as table
from arvision.layouts import masks
from arvision.model import sample
from arvision.process.guidance import guide
from arvision.random import Draw
from arvision.structs import Tokens
from arvision.tasks import assemble
from tests.parity.case import Case, Part, System, captured, imported
from tests.parity.stated import Stated
from tests.parity.systems import llamagen

INPUTS = {'idx', 'label'}


def config_of(args: Stated) -> Any:
  """Our config of the official constructor's arguments."""
  args.only(model_type='c2i', cls_token_num=1)
  config = llamagen.config_of(args, parts.nar, classes=args['num_classes'])
  config.backbone.body.extra = args['total_layers'] - args['n_layer']
  args.ignore('medusa_attention_num')  # this difference
  return config


def transformer(case: Case) -> Iterator[tuple[str, Any]]:
  io, config = case.io, config_of(case.args)
  model = assemble.make_model(config)
  shapes = assemble.model_shapes(model)
  params = imported(case, table.Transformer(), shapes)
  layout, batch = model.layout, len(io['label'])
  inputs = {'label': io['label']}

  # Official rows are in raster order, and the last token, which predicts
  # nothing, has one.
  slot_of = np.argsort(layout.token)
  rows = np.arange(layout.slots)

  def raster(x, axis=1):
    return Part(
      np.take(np.asarray(x), slot_of, axis), (slice(None),) * axis + (rows,)
    )

  seen = captured(model, params, Tokens(io['idx']), inputs, method='logits')
  yield 'after_block0', raster(seen['blocks'][0])
  yield 'hidden_right', raster(seen['blocks'][-1])
  yield 'hidden_below', raster(seen['stack_1'][-1])
  mask = masks.dense(layout)[np.ix_(slot_of, slot_of)]
  yield 'proximity_mask', Part(mask, np.ix_(rows, rows))

  @jax.jit
  def logits(params, codes, null):
    return model.apply(
      {'params': params}, Tokens(codes), inputs, None, null, method='logits'
    )

  none, all_ = np.zeros(batch, bool), np.ones(batch, bool)
  got = logits(params, io['idx'], none)
  yield 'logits', got
  loss = optax.softmax_cross_entropy_with_integer_labels(got, io['idx'])
  yield 'loss', loss.mean()

  # What an interval counts here, tokens or diagonals, no case shows.
  case.generation.only(cfg_interval=-1)
  llamagen.set_sampler(config, case)
  sampler = build(config.sampler, 'sampler')

  @jax.jit
  def generate(params):
    draw = Draw.create(0, jnp.arange(batch))
    return sample(model, params, sampler, inputs, draw).values

  codes = generate(params)
  yield 'gen_idx', codes
  yield 'gen_logit_order', layout.order
  cond, null = logits(params, codes, none), logits(params, codes, all_)
  steps = layout.steps
  scale = np.array([sampler.guidance(s, steps) for s in range(steps)])
  scale = scale[layout.entity_of_token]
  found = np.asarray(guide(cond, null, scale[:, None]))[:, layout.order]
  yield 'gen_logits_cfg', llamagen.guided(case, found)


SYSTEMS = {
  'autoregressive.models.gpt.Transformer(ModelArgs) of NAR-images': System(
    transformer, INPUTS
  ),
}
