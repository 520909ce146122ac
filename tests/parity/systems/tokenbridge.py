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
from arvision.structs import Replay, Tokens
from arvision.tasks import assemble
from tests.parity.case import Case, imported, nchw
from tests.parity.systems.mar import rows

INPUTS = {'latent', 'label', 'orders', 'mask'}


def config_of(case: Case) -> ConfigDict:
  """Our config of the official constructor's arguments."""
  args, call = case.args, case.call
  if args.get('norm_eps', 1e-6) != 1e-6:
    raise NotImplementedError('other norms')
  if args.get('patch_size', 1) != 1:
    raise NotImplementedError('tokens of several places of a latent')
  if call['cfg_schedule'] != 'linear':
    raise NotImplementedError(f'guidance {call["cfg_schedule"]}')
  side = args['img_size'] // args['vae_stride']
  width, second = (args[f'{k}_embed_dim'] for k in ('encoder', 'decoder'))
  head_width = args['channel_embed_dim']
  ratio, span = args['mlp_ratio'], args['std_range']
  config = common.new()
  config.tokenizer = kl16(
    grid=(side, side), channels=args['vae_embed_dim'], scale=1.0
  )
  parts.quantized(
    config.tokenizer,
    args['quant_levels'],
    args['quant_min'],
    args['quant_max'],
    span,
  )
  parts.tokenbridge(
    config,
    order=tuple(case.io['channel_order'].tolist()),
    levels=args['quant_levels'],
    span=span,
    grid=(side, side),
    classes=args['class_num'],
    depth=args['encoder_depth'],
    second_depth=args['decoder_depth'],
    width=width,
    heads=args['encoder_num_heads'],
    hidden=int(ratio * width),
    second={
      'width': second,
      'heads': args['decoder_num_heads'],
      'hidden': int(ratio * second),
    },
    head_width=head_width,
    head_depth=args['channel_depth'],
    head_heads=args['channel_heads'],
    head_hidden=int(ratio * head_width),
    prefix=args['buffer_size'],
    dropout=0.0,
    guidance=call['cfg'],
    temperature=float(call['temperature']),
    steps=call['num_iter'],
  )
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
  values = codec.quantize(rows(io['latent']))
  yield 'quant_idx', values
  yield 'quant_value', codec.embed(values)

  batch, inputs = len(io['label']), {'label': io['label']}
  hole = io['mask'] > 0
  none = np.zeros(batch, bool)

  def run(f):
    return jax.jit(lambda p: model.apply({'params': p}, method=f))(params)

  def teacher_forced(model):
    slots = model.feed.shown(values, hole, model.layout, codec)
    z, at = model.hidden(slots, inputs, none)
    logits = model.head.field(z, values, at)
    loss, _ = model.head.loss(z, values, None, at)
    return z, logits, jnp.sum(hole * loss) / jnp.sum(hole)

  z, logits, loss = run(teacher_forced)
  yield 'z', z[:, :, 0]
  yield 'channel_logits', np.asarray(logits)[hole]
  yield 'loss', loss

  sampler = build(config.sampler, 'sampler')
  drawn = Replay({'order': io['orders']}, size=batch)

  @jax.jit
  def generate(params):
    bound = BoundModel(model, {'params': params}, codec)
    return sampler(bound, inputs, drawn, batch).values

  found = generate(params)
  yield 'gen_idx', found
  yield 'gen', nchw(codec.latent(Tokens(found)))
