"""TokenBridge: MAR over latents in levels, channel by channel."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from arvision.build import build
from arvision.configs import common
from arvision.configs.mar.tokenizer import kl16
from arvision.configs.tokenbridge import parts
from arvision.importers import tokenbridge as table
from arvision.model import BoundModel
from arvision.process.quantiles import boundaries, centres
from arvision.random import Replay
from arvision.structs import Tokens
from arvision.tasks import assemble
from tests.parity.case import Case, System, imported, nchw
from tests.parity.systems import mar

INPUTS = {'latent', 'label', 'orders', 'mask'}


def config_of(case: Case) -> ConfigDict:
  """Our config of the official constructor's arguments."""
  args = case.args
  # Norms of the transformer over channels have this one alone.
  args.only(patch_size=1, norm_eps=1e-6)
  args.ignore('use_quantized_value')
  width, levels = args['channel_embed_dim'], args['quant_levels']
  sizes, span = mar.sizes_of(args), args['std_range']
  config = common.new()
  config.tokenizer = kl16(
    grid=sizes['grid'], channels=args['vae_embed_dim'], scale=1.0
  )
  parts.quantized(
    config.tokenizer, levels, args['quant_min'], args['quant_max'], span
  )
  parts.tokenbridge(
    config,
    order=tuple(case.io['channel_order'].tolist()),
    levels=levels,
    span=span,
    head_width=width,
    head_depth=args['channel_depth'],
    head_heads=args['channel_heads'],
    head_hidden=int(args['mlp_ratio'] * width),
    **sizes,
  )
  mar.set_masking(config, args)
  return config


def transformer(case: Case) -> Iterator[tuple[str, Any]]:
  io, args, config = case.io, case.args, config_of(case)
  levels, span = args['quant_levels'], args['std_range']
  yield 'boundaries', boundaries(levels, span)
  yield 'reconstruction_values', centres(levels, span)
  # The levels are no parameters.
  codec = build(config.tokenizer, 'tokenizer').bind({})
  model = assemble.make_model(config)
  yield 'channel_order', np.array(model.head.order)
  yield 'inv_channel_order', np.argsort(model.head.order)
  shapes = assemble.model_shapes(model, lambda: codec, codec.spec.blank())
  params = imported(case, table.Transformer(span), shapes)
  values = codec.quant.quantize(mar.rows(io['latent']))
  yield 'quant_idx', values
  yield 'quant_value', codec.embed(values)

  batch, inputs = len(io['label']), {'label': io['label']}
  hole = io['mask'] > 0
  none = np.zeros(batch, bool)

  def run(f):
    return jax.jit(lambda p: model.apply({'params': p}, method=f))(params)

  def teacher_forced(model):
    step = model.layout.runs[0].step(0)
    slots = model.feed.slots(values, step, model.layout, codec, hole)
    z, query = model.hidden(slots, inputs, none)
    logits = model.head.field(z, query.replace(values=values))
    loss, _ = model.head.loss(z, values, None, query)
    return z, logits, jnp.sum(hole * loss) / jnp.sum(hole)

  z, logits, loss = run(teacher_forced)
  yield 'z', z[:, :, 0]
  yield 'channel_logits', np.asarray(logits)[hole]
  yield 'loss', loss

  case.generation.greedy(temperature=0)
  mar.set_sampler(config, case.generation)
  config.sampler.logits_filter.temperature = 0.0
  sampler = build(config.sampler, 'sampler')
  drawn = Replay({'order': io['orders']}, size=batch)

  @jax.jit
  def generate(params):
    bound = BoundModel(model, {'params': params}, codec)
    return sampler(bound, inputs, drawn, batch).values

  found = generate(params)
  yield 'gen_idx', found
  yield 'gen', nchw(codec.to_latent(Tokens(found)))


SYSTEMS = {
  'models.tokenbridge.TokenBridge': System(transformer, INPUTS),
}
