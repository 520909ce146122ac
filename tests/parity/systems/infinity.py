"""Infinity: transformer and tokenizer."""

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
from arvision.importers import infinity as table
from arvision.layers import conv
from arvision.layers.resize import resize
from arvision.model import sample
from arvision.quantizers.bsq import BSQ
from arvision.random import Draw, Replay
from arvision.samplers.entity import EntityAR
from arvision.structs import Slots, Tokens
from arvision.tasks import assemble
from arvision.tokenizers.autoencoder import flat
from arvision.tokenizers.bitwise import BitwisePyramid
from tests.parity.case import (
  Bound,
  Case,
  System,
  captured,
  imported,
  nchw,
  nhwc,
)
from tests.parity.stated import NotCompared, Stated
from tests.parity.systems.var import views

# Largest share of flips; cases state those that were drawn.
FLIPS = 1.0
INPUTS = {'text', 'text_lens', 'x_BLC_wo_prefix', 'labels'}


def scales_of(args: Stated) -> tuple[tuple[int, int], ...]:
  """(height, width) of the scales of a schedule of images."""
  schedule = args['scale_schedule']
  if any(t != 1 for t, _, _ in schedule):
    raise args.refused('scale_schedule', 'images have one frame')
  return tuple((h, w) for _, h, w in schedule)


def _numbered(*names):
  """Names of arrays of as many scales as there may be."""
  return {f'{name}_{s}' for name in names for s in range(32)}


TOKENIZER_INPUTS = {
  'image',
  'bsc_strength',
  *_numbered('rand_bits', 'bsc_uniform'),
}


def flips_of(shares: Any, uniforms: Any, largest: float) -> dict[str, Any]:
  """Recorded flips as the draws of `BitwisePyramid.visit`.

  Args:
    shares: (scales,) share of flipped bits, in whole percent.
    uniforms: of every scale with flips, (b, 1, h, w, bits).
    largest: share.
  """
  # In the middle of the numbers that become this share.
  share = np.float32(
    (np.round(100 * np.asarray(shares)) + 0.5) / (np.round(100 * largest) + 1)
  )
  return {
    'share': np.tile(share, (len(uniforms[0]), 1)),
    **{f'flip_{s}': flat([u[:, 0]]) for s, u in enumerate(uniforms)},
  }


def tokenizer_of(case: Case) -> Bound:
  args = case.args
  args.only(new_quant=True)
  channels = args['codebook_dim']
  sizes = {
    'ch': args['base_ch'],
    'res_blocks': args['num_res_blocks'],
    'attention': False,
  }
  module = BitwisePyramid(
    encoder=functools.partial(
      conv.Encoder,
      z_channels=channels,
      ch_mult=tuple(args['encoder_ch_mult']),
      **sizes,
    ),
    decoder=functools.partial(
      conv.Decoder, ch_mult=tuple(args['decoder_ch_mult']), **sizes
    ),
    quantizer=functools.partial(BSQ, channels=channels),
    scales=scales_of(args),
    flips=FLIPS,
    flipped_scales=len(case.io['bsc_strength']),
  )
  return Bound(case, module, table.Tokenizer())


def _flips(case):
  shares = case.io['bsc_strength']
  uniforms = [case.io[f'bsc_uniform_{s}'] for s in range(len(shares))]
  return flips_of(shares, uniforms, FLIPS)


def tokenizer(case: Case) -> Iterator[tuple[str, Any]]:
  io, codec = case.io, tokenizer_of(case)
  grids = codec.module.grids
  image = nhwc(io['image'])

  def per_scale(tokens):
    """(b, t, bits) -> (b, 1, h, w, bits) of every scale."""
    ends = np.cumsum([h * w for h, w in grids])[:-1]
    parts = np.split(np.asarray(tokens), ends, axis=1)
    return [p.reshape(len(p), 1, *g, -1) for p, g in zip(parts, grids)]

  def encode(codec, image):
    latent = codec.encode_latents(image)
    values, sums, _ = codec.quantize(latent)
    return latent, jnp.concatenate(values, 1), jnp.stack(sums)

  z, bits, sums = codec(encode, image)
  yield 'z', nchw(z)
  yield 'quant', nchw(sums[-1])
  for s, own in enumerate(per_scale(bits)):
    yield f'bits_{s}', own

  def decode(codec, values):
    latent = codec.to_latent(Tokens(values))
    return latent, codec.decode_latents(latent), codec.decode(Tokens(values))

  _, decoded, _ = codec(decode, bits)
  yield 'decoded', nchw(decoded)
  random = [io[f'rand_bits_{s}'] for s in range(len(grids))]
  summed, _, image = codec(decode, jnp.int32(flat([x[:, 0] for x in random])))
  yield 'rand_summed', nchw(summed)
  yield 'rand_image', nchw(image)
  yield (
    'mask',
    table.Tokenizer().buffers(case.weights(), ())['quantize.lfq.mask'],
  )

  for s in range(1, len(grids)):
    small = resize(sums[s - 1], grids[s], 'area')
    yield f'var_input_area_{s}', nchw(small)

  draw = Replay(_flips(case), progress=0.0, size=len(z))

  def visit(codec, stored):
    tokens = codec.visit(stored, draw)
    return tokens.values, views(codec, tokens.shown)

  labels, shown = codec(visit, flat([z]))
  yield 'bsc_labels', labels
  yield 'bsc_x_BLC_wo_prefix', shown
  yield 'clean_labels', bits
  yield 'clean_x_BLC_wo_prefix', codec(views, bits)


def config_of(args: Stated) -> ConfigDict:
  """Our config of the official constructor's arguments."""
  args.only(use_bit_label=1, head_aln=True, add_lvl_embeding_only_first_block=1)
  args.ignore('fused_norm')  # the only path without the defect
  args.ignore('cond_drop_rate', 'drop_path_rate', 'norm_eps')
  config = common.new()
  scales = scales_of(args)
  if scales[0] != (1, 1):
    raise args.refused('scale_schedule', 'the first scale has one token')
  bits = args.first('vae_embed_dim', 'codebook_dim')
  scale = args.get('cross_attn_layer_scale', -1)
  config.tokenizer = parts.multi_scale_bsq(scales=scales, bits=bits)
  parts.infinity(
    config,
    length=args['text_maxlen'],
    channels=args['text_channels'],
    depth=args['depth'],
    width=args['embed_dim'],
    heads=args['num_heads'],
    hidden=args.get('mlp_hidden'),
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
  if args.get('rms_norm', False):
    norm = common.block(type='layers.norm.RMSNorm', use_scale=False)
    part.norm = backbone.last_norm.norm = norm
    part.cross_norm = common.block(type='layers.norm.RMSNorm')
  for norm in (part.norm, part.cross_norm, backbone.last_norm.norm):
    norm.epsilon = epsilon
  config.condition.epsilon = epsilon
  if not args.get('cos_attn', True):
    part.attention.logits = common.block(type='layers.attention.Scaled')
  if not args.get('shared_aln', True):
    part.adaln = common.block(type='layers.blocks.AdaLN')
    del backbone.shared_adaln
  if not args.get('rope2d_each_sa_layer', 1):
    del backbone.rotary
  anchors = {0: 'index', 2: 'rounded'}
  kind = args.get('rope2d_normalized_by_hw', 2)
  if kind not in anchors:
    raise args.refused('rope2d_normalized_by_hw', f'only {sorted(anchors)}')
  config.layout.anchor = anchors[kind]


def loaded(case: Case) -> tuple[ConfigDict, Any, Any]:
  """Config, model and parameters of a transformer case."""
  config = config_of(case.args)
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
  return BitwisePyramid(
    encoder=functools.partial(_Half, z_channels=bits),
    decoder=_Half,
    quantizer=functools.partial(BSQ, channels=bits),
    scales=scales_of(case.args),
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
  yield 'head_norm_out', modules['backbone']['norm']['__call__'][0]
  if model.backbone.rotary:
    head = model.backbone.width // model.backbone.heads
    layout = model.layout
    slots = Slots(labels, layout.index)
    yield 'rope_grid', model.backbone.rotary(layout, slots, head)

  logits = modules['head']['linear']['__call__'][0]
  yield 'logits', logits.reshape(*logits.shape[:2], -1)
  each = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
  yield 'loss_per_token', jnp.mean(each, -1)

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
    tau = tau[model.layout.entity_of_token][:, None, None]
    yield f'{name}_bits', bits
    yield f'{name}_inputs', given
    yield f'{name}_summed_codes', nchw(summed)
    yield f'{name}_logits', logits / tau


TRAINING_INPUTS = {
  *('raw_features', 'text', 'text_lens', 'drop_uniform', 'flip_strength'),
  *_numbered('flip_uniform'),
}


def training_codec(case: Case) -> BitwisePyramid:
  """The pyramid of a training case, with its flips."""
  training = case.meta['training']
  return codec_module(
    case,
    flips=training['noise_apply_strength'],
    flipped_scales=training['noise_apply_layers'],
  )


def moment(case: Case, i: int) -> tuple[np.ndarray, dict, dict]:
  """Stored latents, inputs of the condition and draws of the i-th step."""
  io, training = case.io, case.meta['training']
  if not training['noise_apply_requant'] or training['reweight']:
    raise NotCompared('training: flips enter the sum and tokens weigh the same')
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
  'infinity.models.bsq_vae.flux_vqgan.AutoEncoder': System(
    tokenizer, TOKENIZER_INPUTS
  ),
  'infinity.models.infinity.Infinity': System(transformer, INPUTS),
}
