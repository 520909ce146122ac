"""VAR: transformer and tokenizer."""

import functools
import re
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from arvision.build import build
from arvision.configs import common
from arvision.configs.var import parts
from arvision.importers import var as table
from arvision.layers import conv
from arvision.model import sample
from arvision.process.guidance import guide
from arvision.quantizers.lookup import AngleLookup, Lookup
from arvision.random import Draw
from arvision.structs import Tokens
from arvision.tasks import assemble
from arvision.tokenizers.residual import ResidualPyramid, phi_index
from tests.parity.case import (
  Bound,
  Case,
  System,
  captured,
  imported,
  nchw,
  nhwc,
)
from tests.parity.stated import Stated

TOKENIZER_INPUTS = {'image', 'rand_idx'}
INPUTS = {'label', 'teacher_input'}


class Teacher:
  """A codec that hands out the recorded teacher-forcing input.

  Attributes:
    rows: what scales are given of smaller ones.
    own: what they are of themselves (HMAR), or None.
  """

  def __init__(self, rows: Any, scales: tuple[int, ...], own: Any = None):
    self.rows, self.scales, self.own = rows, scales, own

  def visit(self, stored, draw):
    return Tokens(stored)

  def canvas(self, batch):
    return np.zeros((batch, 1, 1, self.rows.shape[-1]))

  def merge(self, canvas, values, s):
    return np.full_like(canvas, s)  # the last scale that it has

  def view(self, canvas, s):
    first = self.scales[0] ** 2
    before = sum(side**2 for side in self.scales[:s]) - first
    rows = self.own if canvas.max() == s else self.rows
    return rows[:, before : before + self.scales[s] ** 2]


def config_of(args: Stated) -> ConfigDict:
  """Our config of the official constructor's arguments."""
  config = common.new()
  parts.var(
    config,
    scales=tuple(args['patch_nums']),
    vocab_size=args['vocab'],
    classes=args['num_classes'],
    depth=args['depth'],
    width=args['embed_dim'],
    heads=args['num_heads'],
    shared_adaln=args['shared_aln'],
    drop_path=0.0,
  )
  set_blocks(config, args)
  return config


def set_blocks(config: ConfigDict, args: Stated) -> None:
  """What VAR and FlexVAR say about their blocks."""
  # Rates and fused kernels: the arrays were recorded without the former, and
  # the latter compute the same.
  args.ignore('cond_drop_rate', 'token_dropout_p', 'drop_path_rate')
  args.ignore('drop_rate', 'attn_drop_rate')
  args.ignore('flash_if_available', 'fused_if_available')
  width = args['embed_dim']
  backbone, epsilon = config.backbone, args['norm_eps']
  backbone.block.mlp.hidden = round(width * args['mlp_ratio'])
  backbone.block.norm.epsilon = backbone.last_norm.norm.epsilon = epsilon
  if not args['attn_l2_norm']:
    scale = 0.25 / (width // args['num_heads']) ** 0.5
    backbone.block.attention.logits = common.block(
      type='layers.attention.Scaled', scale=scale
    )


def greedy(case: Case) -> None:
  """Refuses generations that do not take the best code of every position."""
  run = case.generation
  run.greedy(top_k=1)
  run.only(more_smooth=False)
  run.ignore('top_p', 'g_seed')  # of the one best code


def loaded(case: Case) -> tuple[ConfigDict, Any, Any]:
  """Config, model and parameters of a transformer case."""
  config = config_of(case.args)
  model = assemble.make_model(config)
  shapes = assemble.model_shapes(
    model, lambda: Teacher(_no_rows(case), _scales(case))
  )
  return config, model, imported(case, table.Transformer(), shapes)


def _no_rows(case):
  total = sum(side**2 for side in _scales(case))
  return jnp.zeros((1, total - _scales(case)[0] ** 2, case.args['Cvae']))


def _scales(case):
  return tuple(case.args['patch_nums'])


def transformer(case: Case) -> Iterator[tuple[str, Any]]:
  io = case.io
  config, model, params = loaded(case)
  batch = len(io['label'])
  inputs = {'label': io['label']}

  @functools.partial(jax.jit, static_argnums=2)
  def logits(params, codes, codec, null):
    return model.apply(
      {'params': params}, Tokens(codes), inputs, codec, null, method='logits'
    )

  recorded = Teacher(jnp.asarray(io['teacher_input']), _scales(case))
  tokens = Tokens(io['gen_idx'])
  seen = captured(model, params, tokens, inputs, recorded, method='logits')
  yield 'embed', seen['embed']
  yield 'after_block0', seen['blocks'][0]
  yield 'after_last_block', seen['blocks'][-1]
  yield 'cond_BD', seen['condition'].modulation[:, 0]
  none, all_ = np.zeros(batch, bool), np.ones(batch, bool)
  yield 'logits', logits(params, io['gen_idx'], recorded, none)
  yield 'logits_uncond', logits(params, io['gen_idx'], recorded, all_)

  greedy(case)
  codec = tokenizer_of(_tokenizer_case(case))
  config.sampler.guidance.end = 1 + case.generation['cfg']
  config.sampler.logits_filter.temperature = 0.0
  sampler = build(config.sampler, 'sampler')

  @jax.jit
  def generate(params, variables):
    bound = codec.module.bind({'params': variables})
    draw = Draw.create(0, jnp.arange(batch))
    tokens = sample(model, params, sampler, inputs, draw, bound)
    seen = views(bound, tokens.values)
    return tokens.values, bound.to_latent(tokens), seen, bound.decode(tokens)

  codes, total, seen, image = generate(params, codec.params)
  yield 'gen_idx', codes
  yield 'gen_fhat', nchw(total)
  yield 'gen_next_input', seen
  yield 'gen_image', nchw((image + 1) / 2)
  steps = model.layout.steps
  scale = np.array([sampler.guidance(s, steps) for s in range(steps)])
  scale = scale[model.layout.entity_of_token]
  yield 'gen_cfg_per_position', scale - 1
  generated = Teacher(seen, _scales(case))
  cond = logits(params, codes, generated, none)
  null = logits(params, codes, generated, all_)
  yield 'gen_logits_cfg', guide(cond, null, scale[:, None])


def _tokenizer_case(case):
  """The case whose tokenizer made the images, 'built from ../NAME/...'."""
  words = case.meta.get('tokenizer_weights', '')
  named = re.search(r'\.\./(\w+)', words)
  return case.sibling(named[1] if named else 'var_vqvae')


def views(codec: Any, values: Any) -> jax.Array:
  """What every scale but the first is given of the smaller ones."""
  canvas, seen, start = codec.canvas(values.shape[0]), [], 0
  for s, (height, width) in enumerate(codec.spec.grids[:-1]):
    stop = start + height * width
    canvas = codec.merge(canvas, values[:, start:stop], s)
    seen.append(codec.view(canvas, s + 1))
    start = stop
  return jnp.concatenate(seen, 1)


def tokenizer_of(case: Case) -> Bound:
  args = case.args
  args.ignore('dropout', 'test_mode')
  sizes = {
    'ch': args['ch'],
    'ch_mult': tuple(args['ch_mult']),
    'res_blocks': args['num_res_blocks'],
  }
  z, share = args['z_channels'], args['share_quant_resi']
  quantizer = AngleLookup if args['using_znorm'] else Lookup
  module = ResidualPyramid(
    encoder=functools.partial(conv.Encoder, z_channels=z, **sizes),
    decoder=functools.partial(conv.Decoder, **sizes),
    quantizer=functools.partial(
      quantizer,
      vocab_size=args['vocab_size'],
      channels=z,
      commitment=args['beta'],
    ),
    scales=tuple(args['v_patch_nums']),
    phi_ratio=abs(args['quant_resi']),
    phi_share=share or args.get('default_qresi_counts', 0),
    quant_kernel=args.get('quant_conv_ks', 3),
  )
  return Bound(case, module, table.Tokenizer(own_phi=not share))


def tokenizer(case: Case) -> Iterator[tuple[str, Any]]:
  io, codec = case.io, tokenizer_of(case)
  image = nhwc(io['image'])

  def encode(codec, image):
    f = codec.encode_latents(image)
    codes, sums, _ = codec.quantize(f)
    return codec.enc(image), f, jnp.concatenate(codes, 1), jnp.stack(sums, 1)

  out, f, codes, sums = codec(encode, image)
  yield 'encoder_out', nchw(out)
  yield 'f', nchw(f)
  yield 'idx', codes
  yield 'fhat_per_scale', nchw(sums)

  def decode(codec, values):
    two = sum(h * w for h, w in codec.spec.grids[:2])
    total = codec.to_latent(Tokens(values))
    return {
      'total': total,
      'unclamped': codec.decode_latents(total),
      'recon': codec.decode(Tokens(values)),
      'recon_scale1': codec.decode(Tokens(values[:, :two])),
      'views': views(codec, values),
    }

  made = codec(decode, io['idx'])
  yield 'decoder_out_unclamped', nchw(made['unclamped'])
  yield 'recon', nchw(made['recon'])
  yield 'recon_scale1', nchw(made['recon_scale1'])
  yield 'var_input', made['views']
  made = codec(decode, io['rand_idx'])
  yield 'rand_fhat', nchw(made['total'])
  yield 'rand_image', nchw(made['recon'])
  yield 'rand_var_input', made['views']
  scales, convs = len(codec.module.scales), codec.module.phi_share
  chosen = [phi_index(s, scales, convs or scales) for s in range(scales)]
  yield 'phi_index', np.array(chosen)


SYSTEMS = {
  'models.var.VAR': System(transformer, INPUTS),
  'models.vqvae.VQVAE': System(tokenizer, TOKENIZER_INPUTS),
}
