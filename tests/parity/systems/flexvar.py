"""FlexVAR: transformer, and the codes of its tokenizer's scales."""

import functools
from collections.abc import Iterator
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from arvision.build import build
from arvision.configs import common
from arvision.configs.flexvar import parts
from arvision.importers import flexvar as table
from arvision.importers import llamagen
from arvision.model import sample
from arvision.process.guidance import guide
from arvision.quantizers.lookup import UnitLookup
from arvision.random import Draw
from arvision.structs import Tokens
from arvision.tasks import assemble
from arvision.tokenizers.pyramid import Pyramid
from tests.parity.case import (
  Case,
  Subset,
  System,
  captured,
  imported,
  nchw,
  nhwc,
)
from tests.parity.systems import var

INPUTS = {'label', 'encoder_features'}


class Given(nn.Module):
  """Instead of an encoder: images are the features already."""

  z_channels: int

  def __call__(self, features, train=False):
    return features


def transformer(case: Case) -> Iterator[tuple[str, Any]]:
  io, scales = case.io, tuple(case.args['patch_nums'])
  batch, inputs = len(io['label']), {'label': io['label']}
  none, all_ = np.zeros(batch, bool), np.ones(batch, bool)

  codec, variables = _codec(case, scales)
  bound = codec.bind(variables)
  tokens = bound.encode(nhwc(io['encoder_features']))
  yield 'ms_idx', tokens.values
  yield 'ms_quant', bound.embed(tokens.values)

  config, model, params = _loaded(case, scales, codec)

  @functools.partial(jax.jit, static_argnums=0)
  def logits(model, params, codes, null):
    return model.apply(
      {'params': params}, Tokens(codes), inputs, bound, null, method='logits'
    )

  draw = Draw.create(0, np.arange(batch))
  slots, _ = model.feed.train(tokens, model.layout, bound, draw)
  yield 'teacher_input', slots.values[:, scales[0] ** 2 :]
  seen = captured(model, params, tokens, inputs, bound, method='logits')
  yield 'embed', seen['embed']
  yield 'after_block0', seen['blocks'][0]
  yield 'after_last_block', seen['blocks'][-1]
  got = logits(model, params, tokens.values, none)
  yield 'logits', got
  loss = optax.softmax_cross_entropy_with_integer_labels(got, tokens.values)
  yield 'loss', loss.mean()

  alt = case.meta.get('alt_patch_nums')
  if alt:
    codec, variables = _codec(case, alt)
    other = _loaded(case, alt, codec)[1]
    own = codec.bind(variables)
    tokens = own.encode(nhwc(io['encoder_features']))
    slots, _ = other.feed.train(tokens, other.layout, own, draw)
    yield 'alt_teacher_input', slots.values[:, alt[0] ** 2 :]
    yield 'alt_logits', logits(other, params, tokens.values, none)

  sampler = _sampler(case)
  drawing = model.clone(layout=sampler.layout)

  @jax.jit
  def generate(params):
    return sample(model, params, sampler, inputs, draw, bound).values

  codes = generate(params)
  yield 'gen_idx', codes
  steps = sampler.layout.steps
  scale = np.array([sampler.guidance(s, steps) for s in range(steps)])
  scale = scale[sampler.layout.entity_of_token][:, None]
  cond, null = (logits(drawing, params, codes, n) for n in (none, all_))
  yield 'gen_logits_cfg', guide(cond, null, scale)
  height, width = sampler.layout.grids[-1]
  last = bound.embed(codes[:, -height * width :])
  yield 'gen_latent', nchw(last.reshape(batch, height, width, -1))


def _config(case, scales, **more):
  """Our config of the official constructor's arguments."""
  args, config = case.args, common.new()
  options: dict[str, Any] = {'drawn': scales, 'top_k': 0, 'top_p': 1.0, **more}
  parts.flexvar(
    config,
    scales=scales,
    groups=(),
    vocab_size=args['vocab'],
    classes=args['num_classes'],
    depth=args['depth'],
    width=args['embed_dim'],
    heads=args['num_heads'],
    shared_adaln=args['shared_aln'],
    drop_path=0.0,
    **options,
  )
  var.set_blocks(config, args)
  rows, columns = map(int, args['pos_grid'].split('x'))
  if rows != columns:
    raise args.refused('pos_grid', 'our table of positions is square')
  config.backbone.position.side = rows
  return config


def _sampler(case):
  """The sampler of the recorded call."""
  var.greedy(case)
  run, args = case.generation, case.args
  drawn = tuple(run.get('infer_patch_nums') or args['patch_nums'])
  config = _config(
    case,
    tuple(args['patch_nums']),
    drawn=drawn,
    guidance=run['cfg'],
    largest=run.get('max_pn', 16),
  )
  guidance = config.sampler.guidance
  if run.get('used_llamagen_cfg'):
    guidance.update(scale=guidance.scale - 1, shares=(1.0,) * len(drawn))
  config.sampler.logits_filter.temperature = 0.0
  return build(config.sampler, 'sampler')


def _loaded(case, scales, codec):
  """Config, model and parameters for one list of scales."""
  config = _config(case, tuple(scales))
  model = assemble.make_model(config)
  image = jnp.zeros((1, *nhwc(case.io['encoder_features']).shape[1:]))

  def bound():
    return codec.bind(codec.init(jax.random.key(0), image, method='encode'))

  shapes = assemble.model_shapes(model, bound)
  own = Subset(case, lambda key: not key.startswith('vae.'))
  return config, model, imported(own, table.Transformer(), shapes)


def _codec(case, scales):
  """The tokenizer of a list of scales behind its encoder, and its weights."""
  features = nhwc(case.io['encoder_features'])
  form = llamagen.Tokenizer()
  module = Pyramid(
    encoder=functools.partial(Given, z_channels=features.shape[-1]),
    decoder=functools.partial(Given, z_channels=features.shape[-1]),
    quantizer=functools.partial(
      UnitLookup, vocab_size=case.args['vocab'], channels=case.args['Cvae']
    ),
    scales=tuple(scales),
  )
  init = functools.partial(module.init, method='encode')
  shapes = jax.eval_shape(init, jax.random.key(0), features[:1])['params']
  own = Subset(case, lambda key: key.startswith('vae.'), 'vae.')
  return module, {'params': imported(own, form, nn.unbox(shapes))}


SYSTEMS = {
  'models.flexvar.FlexVAR': System(transformer, INPUTS),
}
