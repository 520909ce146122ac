"""Infinity: its transformer."""

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from arvision.build import build
from arvision.configs import common
from arvision.configs.infinity import parts
from arvision.layouts.scales import Grids
from arvision.model import sample
from arvision.quantizers.bsq import BSQ
from arvision.random import Draw, Replay
from arvision.samplers.entity import EntityAR
from arvision.structs import Slots, Tokens
from arvision.tasks import assemble
from arvision.tokenizers.autoencoder import flat
from arvision.tokenizers.bitwise import BitwisePyramid
from tests.parity.case import (
  Case,
  System,
  captured,
  imported,
  nchw,
  nhwc,
)
from tests.parity.stated import Stated
from tests.parity.systems.infinity_tokenizer import (
  flips_of,
  numbered,
  scales_of,
)
from tests.parity.systems.var import views

INPUTS = {'text', 'text_lens', 'x_BLC_wo_prefix', 'labels'}


def largest(grids: Grids) -> tuple[int, int]:
  """The last scale of the longest list of which these are a part.

  Published lists end early where images are smaller, and keep the positions of the
  whole list.
  """
  for scales in parts.RATIOS.values():
    if any(grids == scales[:n] for n in parts.COUNTS.values()):
      return scales[-1]
  return grids[-1]


def patch_of(args: Stated) -> int:
  """Side of a token in places of the latent."""
  return 2 if args.get('apply_spatial_patchify', 0) else 1


def config_of(args: Stated) -> ConfigDict:
  """Our config of the official constructor's arguments."""
  args.only(drop_rate=0.0)
  args.ignore('fused_norm')  # the only path without the defect
  args.ignore('customized_flash_attn', 'use_flex_attn', 'fused_mlp')
  args.ignore('cond_drop_rate', 'drop_path_rate', 'norm_eps')
  config = common.new()
  scales = scales_of(args)
  if scales[0] != (1, 1):
    raise args.refused('scale_schedule', 'the first scale has one token')
  bits = args.first('vae_embed_dim', 'codebook_dim')
  scale = args.get('cross_attn_layer_scale', -1)
  width = args['embed_dim']
  hidden = round(width * args.get('mlp_ratio', 4.0) / 256) * 256
  config.tokenizer = parts.multi_scale_bsq(
    scales=scales, bits=bits, patch=patch_of(args)
  )
  parts.infinity(
    config,
    length=args['text_maxlen'],
    channels=args['text_channels'],
    depth=args['depth'],
    width=width,
    heads=args['num_heads'],
    hidden=args.get('mlp_hidden', hidden),
    ids=None if args.get('use_bit_label', 1) else 1,
    chunks=args.get('block_chunks', 1),
    layer_scale=scale if scale >= 0 else None,
    drop_path=0.0,
    area_power=0.0,
  )
  _set_blocks(config, args)
  return config


def _set_blocks(config, args):
  backbone, epsilon = config.backbone, args.get('norm_eps', 1e-6)
  part = backbone.block
  plain, affine = (
    common.block(type=f'layers.norm.{kind}LayerNorm', epsilon=epsilon)
    for kind in ('', 'Affine')
  )
  if args.get('rms_norm', False):
    affine = common.block(type='layers.norm.RMSNorm', epsilon=epsilon)
    plain = common.block(**affine, use_scale=False)
  part.norm, part.cross_norm = plain, affine
  backbone.last_norm.norm = plain
  if not args.get('head_aln', True):
    backbone.last_norm = affine
  if args.get('nm0', False):
    backbone.input.update(
      type='backbones.inputs.NormedVectorInput', norm=affine
    )
  if args.get('head_depth', 1) != 1:
    config.head.update(
      type='heads.categorical.DeepCategorical', width=args['embed_dim']
    )
  config.condition.epsilon = epsilon
  if not args.get('cos_attn', True):
    head = args['embed_dim'] // args['num_heads']
    part.attention.logits = common.block(
      type='layers.attention.Scaled', scale=head**-0.5 / args.get('tau', 1)
    )
  args.ignore('tau')  # of attention by cosine
  if args.get('swiglu', False):
    hidden = round(2 * part.mlp.hidden / 3 / 256) * 256
    part.mlp.update(type='layers.blocks.SwiGLU', hidden=hidden)
  if not args.get('shared_aln', True):
    part.adaln = common.block(type='layers.blocks.AdaLN')
    del backbone.shared_adaln
  if not args.get('rope2d_each_sa_layer', 1):
    del backbone.rotary
  if not args.get('add_lvl_embeding_only_first_block', 1):
    chunks = args.get('block_chunks', 1)
    every = args['depth'] // chunks if chunks > 1 else 1
    backbone.body = common.block(type='backbones.bodies.Repeated', every=every)
  anchors = {0: 'index', 1: 'ends', 2: 'rounded'}
  kind = args.get('rope2d_normalized_by_hw', 2)
  if kind not in anchors:
    raise args.refused('rope2d_normalized_by_hw', f'only {sorted(anchors)}')
  config.layout.anchor = anchors[kind]
  config.layout.units = units = largest(scales_of(args))
  if kind == 1:
    backbone.rotary.type = 'layers.position.InterpolatedRotary'
    h, w = units
    tall, wide = (128, int(128 / h * w)), (int(128 / w * h), 128)
    config.layout.units = tall if h >= w else wide


def loaded(case: Case) -> tuple[ConfigDict, Any, Any]:
  """Config, model and parameters of a transformer case."""
  config = config_of(case.args)
  if case.training.get('reweight'):
    config.feed.area_power = 0.5
  config.feed.summed = case.training.get('bitloss_type', 'mean') == 'sum'
  rows = case.meta['weights']['lvl_embed.weight']['shape'][0]
  config.backbone.position.rows = rows
  model = assemble.make_model(config)
  codec = _codec(case)
  shapes = assemble.model_shapes(model, lambda: codec, codec.spec.blank())
  form = build(config.release, 'release')
  return config, model, imported(case, form, shapes)


class _Half(nn.Module):
  """Stands for an encoder or a decoder: images are latents."""

  z_channels: int = 3

  def __call__(self, x, train=False):
    return x


def codec_module(case: Case, **fields: Any) -> BitwisePyramid:
  """The pyramid of a transformer case, without a network."""
  bits = case.args.first('vae_embed_dim', 'codebook_dim')
  ids = None if case.args.get('use_bit_label', 1) else 1
  return BitwisePyramid(
    encoder=functools.partial(_Half, z_channels=bits),
    decoder=_Half,
    quantizer=functools.partial(BSQ, channels=bits, ids=ids),
    scales=scales_of(case.args),
    patch=patch_of(case.args),
    **fields,
  )


def _codec(case):
  return codec_module(case).bind({})


def captions(text: np.ndarray, lens: np.ndarray, length: int) -> dict:
  """Packed captions (sum of lengths, c) as inputs of the condition."""
  blank = np.zeros((len(lens), length, text.shape[-1]), np.float32)
  valid = np.arange(length) < lens[:, None]
  blank[valid] = text
  return {'text': blank, 'text_valid': valid}


class Given:
  """A codec that hands out the recorded input of all scales but the first."""

  def __init__(self, rows: Any, grids: tuple[tuple[int, int], ...]):
    self.rows, self.grids = rows, grids

  def canvas(self, batch):
    return jnp.zeros((batch, 1, 1, self.rows.shape[-1]))

  def merge(self, canvas, values, s):
    return canvas

  def view(self, canvas, s):
    sizes = [h * w for h, w in self.grids]
    start = sum(sizes[1:s])
    return self.rows[:, start : start + sizes[s]]


def _lists(run, name, grids):
  """Scale of guidance and temperature at every step, float32."""
  lists = (np.float32(run[key]) for key in ('cfg_list', 'tau_list'))
  scale, tau = (np.broadcast_to(x, len(grids)) for x in lists)
  return (np.ones_like(scale) if name.endswith('nocfg') else scale), tau


@dataclasses.dataclass(frozen=True, eq=False)
class _Scales:
  """Recorded scales, traced: one program for all recorded calls."""

  values: jax.Array
  active = True

  def __call__(self, s, steps, level=None):
    return self.values[s]


def transformer(case: Case) -> Iterator[tuple[str, Any]]:
  io, args = case.io, case.args
  config, model, params = loaded(case)
  inputs = captions(io['text'], io['text_lens'], args['text_maxlen'])
  valid, grids = inputs['text_valid'], scales_of(args)
  recorded = Given(jnp.asarray(io['x_BLC_wo_prefix']), grids)
  labels = jnp.int32(io['labels'])

  seen = captured(
    model, params, Tokens(labels), inputs, recorded, method='logits'
  )
  modules = seen['modules']
  cond, layers = seen['condition'], modules['backbone']['stack']['layers']
  yield 'sos', cond.modulation[:, 0]
  yield 'text_normed', modules['condition']['norm']['__call__'][0][valid]
  yield 'text_kv', cond.memory[valid]
  if 'shared_adaln' in modules['backbone']:
    yield 'ada', modules['backbone']['shared_adaln']['__call__'][0]
  block = layers['block']
  yield 'self_attn0_out', block['attention']['__call__'][0][0][0]
  # Before the layer scale.
  yield 'cross_attn0_out', block['cross']['out']['__call__'][0][0]
  yield 'after_block0', seen['blocks'][0]
  yield 'after_last_block', seen['blocks'][-1]
  normed = modules['backbone']['norm']['__call__'][0]
  # Without a modulation the official norm belongs to the head.
  modulated = args.get('head_aln', True)
  yield 'head_norm_out', normed if modulated else seen['blocks'][-1]
  if model.backbone.rotary:
    head = model.backbone.width // model.backbone.heads
    layout = model.layout
    slots = Slots(labels, layout.index)
    yield 'rope_grid', model.backbone.rotary(layout, slots, head)

  logits = modules['head']['linear']['__call__'][0]
  yield 'logits', logits.reshape(*logits.shape[:2], -1)
  each = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
  yield 'loss_per_token', jnp.mean(each.reshape(*each.shape[:2], -1), -1)

  if not args.get('use_bit_label', 1):
    return  # the official code samples bits alone
  codec = _codec(case)

  @functools.partial(jax.jit, static_argnums=2)
  def generate(params, scales, layers):
    site = 'field' if 0 in layers else 'layers'
    layers = tuple(n for n in layers if n)
    kept: list[jax.Array] = []

    def greedy(logits, draw):
      kept.append(logits)
      return jnp.argmax(logits, -1).astype(jnp.int32)

    sampler = EntityAR(_Scales(scales), greedy, site=site, guided_layers=layers)
    draw = Draw.create(0, jnp.arange(len(labels)))
    tokens = sample(model, params, sampler, inputs, draw, codec)
    summed = codec.to_latent(tokens)
    given = views(codec, tokens.values)
    return jnp.concatenate(kept, 1), tokens.values, given, summed

  for name, run in case.runs.items():
    run.greedy(top_k=1)
    run.only(vae_type=1)
    run.ignore('inference_mode', 'top_p', 'g_seed', 'gumbel', 'returns_vemb')
    layers = tuple(run.get('cfg_insertion_layer', [0]))
    scale, tau = _lists(run, name, grids)
    logits, bits, given, summed = generate(params, scale, layers)
    tau = tau[model.layout.entity_of_token]
    tau = tau.reshape(-1, *[1] * (logits.ndim - 2))
    yield f'{name}_bits', bits
    yield f'{name}_inputs', given
    yield f'{name}_summed_codes', nchw(summed)
    yield f'{name}_logits', logits / tau


TRAINING_INPUTS = {
  *('raw_features', 'text', 'text_lens', 'drop_uniform', 'flip_strength'),
  *numbered('flip_uniform'),
}


def training_codec(case: Case) -> BitwisePyramid:
  """The pyramid of a training case, with its flips."""
  training = case.training
  strength = training['noise_apply_strength']
  return codec_module(
    case,
    # Without requantisation they enter neither the sums nor the targets.
    flips=strength if training['noise_apply_requant'] else 0.0,
    flipped_scales=training['noise_apply_layers'],
  )


def moment(case: Case, i: int) -> tuple[np.ndarray, dict, dict]:
  """Stored latents, inputs of the condition and draws of the i-th step."""
  io, training = case.io, case.training
  stored = flat([nhwc(io['raw_features'][i])])
  inputs = captions(io['text'][i], io['text_lens'], case.args['text_maxlen'])
  shares = io['flip_strength'][i]
  uniforms = [io[f'flip_uniform_{s}'][i] for s in range(len(shares))]
  strength = training['noise_apply_strength']
  draws = flips_of(shares, uniforms, strength)
  # A float64 rounded up to the rate would be dropped no more.
  null = np.float32(io['drop_uniform'][i])
  return stored, inputs, {**draws, 'null': null}


def corrected(case: Case) -> Iterator[tuple[str, Any]]:
  """What the transformer is given and its targets, of all steps."""
  codec, found = training_codec(case).bind({}), []

  @jax.jit
  def visit(stored, draws):
    draw = Replay(draws, progress=0.0, size=len(stored))
    tokens = codec.visit(stored, draw)
    return views(codec, tokens.shown), tokens.values

  for i in range(len(case.io['lr'])):
    stored, _, draws = moment(case, i)
    found.append(visit(stored, draws))
  for name, arrays in zip(('transformer_input', 'labels'), zip(*found)):
    yield name, np.stack(arrays)


SYSTEMS = {
  'infinity.models.infinity.Infinity': System(transformer, INPUTS),
}
