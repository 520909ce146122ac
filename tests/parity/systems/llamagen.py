"""LlamaGen: transformer and tokenizer."""

import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from arvision.build import build
from arvision.configs import common
from arvision.configs.llamagen import parts
from arvision.importers import llamagen as table
from arvision.layers import conv
from arvision.layers.position import rotations
from arvision.metrics import total
from arvision.model import sample
from arvision.process.guidance import guide
from arvision.structs import Draw, Tokens
from arvision.tasks import assemble
from arvision.tokenizers.vq import VQ
from tests.parity.case import Bound, Case, captured, imported, nchw, nhwc

TOKENIZER_INPUTS = {'image', 'rand_idx'}
INPUTS = {'idx', 'cond', 'label', 'emb_mask', 'valid'}


def sizes_of(args: dict[str, Any], classes: int) -> dict[str, Any]:
  """The arguments of `parts.llamagen` for those of the official class."""
  if args.get('n_kv_head') not in (None, args['n_head']):
    raise NotImplementedError('fewer keys than queries')
  if args['rope_base'] != 10000 or args['norm_eps'] != 1e-5:
    raise NotImplementedError('another rope_base or norm_eps')
  side = round(args['block_size'] ** 0.5)
  return {
    'grid': (side, side),
    'vocab_size': args['vocab_size'],
    'classes': classes,
    'depth': args['n_layer'],
    'width': args['dim'],
    'heads': args['n_head'],
    'hidden': args['ffn_hidden'],
    'dropout': 0.0,
  }


def loaded(case: Case) -> tuple[ConfigDict, Any, Any]:
  """Config, model and parameters of a transformer case."""
  args, config = case.args, common.new()
  if args['model_type'] == 't2i':
    sizes = sizes_of(args, 0)
    sizes.pop('classes')
    parts.llamagen_t2i(
      config,
      length=args['cls_token_num'],
      channels=args['caption_dim'],
      **sizes,
    )
  else:
    # Without label dropping the official table has no row for null, and ours
    # takes its last class for it.
    table_of_classes = 'cls_embedding.embedding_table.weight'
    rows = case.meta['weights'][table_of_classes]['shape'][0]
    parts.llamagen(config, **sizes_of(args, rows - 1))
  model = assemble.make_model(config)
  shapes = assemble.model_shapes(model)
  return config, model, imported(case, table.Transformer(), shapes)


def transformer(case: Case) -> Iterator[tuple[str, Any]]:
  io = case.io
  config, model, params = loaded(case)
  batch = len(io['cond'])
  inputs = {'label': io['cond']}
  if 'emb_mask' in io:
    whole = np.ones_like(io['emb_mask'], bool)
    inputs = {'text': io['cond'], 'text_valid': whole}
    padded = {**inputs, 'text_valid': io['emb_mask'] > 0}

  @jax.jit
  def logits(params, inputs, codes, null):
    return model.apply(
      {'params': params}, Tokens(codes), inputs, None, null, method='logits'
    )

  def losses(logits):
    return optax.softmax_cross_entropy_with_integer_labels(logits, io['idx'])

  none, all_ = np.zeros(batch, bool), np.ones(batch, bool)
  seen = captured(model, params, Tokens(io['idx']), inputs, method='logits')
  yield 'cond_embedding', seen['condition'].prefix
  yield 'embed', seen['embed']
  yield 'after_block0', seen['blocks'][0]
  yield 'after_last_block', seen['blocks'][-1]
  got = logits(params, inputs, io['idx'], none)
  yield 'logits', got
  yield 'loss', losses(got).mean()
  yield 'freqs_cis', _rotations(case.args)
  if 'emb_mask' in io:
    yield 'logits_masked', logits(params, padded, io['idx'], none)
    yield 'loss_masked_valid', _weighted(model, params, padded, io)
    inputs = padded

  generation = case.meta['generation']
  last = generation.get('cfg_interval', -1)
  config.sampler.guidance.scale = generation['cfg_scale']
  # The official number counts the tokens after the first.
  config.sampler.guidance.until = last + 2 if last > -1 else None
  config.sampler.choice.temperature = 0.0
  config.sampler.choice.top_k = 0
  sampler = build(config.sampler, 'sampler')

  @jax.jit
  def generate(params):
    draw = Draw.create(0, jnp.arange(batch))
    return sample(model, params, sampler, inputs, draw).values

  codes = generate(params)
  yield 'gen_idx', codes
  cond, null = (logits(params, inputs, codes, n) for n in (none, all_))
  steps = np.arange(codes.shape[1])
  scale = jnp.broadcast_to(sampler.guidance(steps, len(steps)), steps.shape)
  yield 'gen_logits_cfg', guide(cond, null, scale[:, None])


def _weighted(model, params, inputs, io):
  """The mean loss over the examples that count."""
  terms, _ = model.apply(
    {'params': params},
    Tokens(io['idx']),
    inputs,
    Draw.create(0, np.arange(len(io['idx']))),
    weight=io['valid'],
    train=False,
    method='losses',
  )
  return total(terms).compute()


def _rotations(args):
  """The table of condition and tokens; the last token is never put in."""
  side = round(args['block_size'] ** 0.5)
  coords = np.indices((side, side), np.float32).reshape(2, -1).T
  none = np.full((args['cls_token_num'], 2), np.nan, np.float32)
  head = args['dim'] // args['n_head']
  turns = rotations(np.concatenate([none, coords]), head, args['rope_base'])
  return np.moveaxis(turns, 0, -1)


def tokenizer_of(case: Case) -> Bound:
  args = case.args
  if args['encoder_ch_mult'] != args['decoder_ch_mult']:
    raise NotImplementedError('an encoder and a decoder of other levels')
  mult = tuple(args['encoder_ch_mult'])
  sizes = {
    'ch': args['ch'],
    'ch_mult': mult,
    'res_blocks': args['num_res_blocks'],
  }
  z = args['z_channels']
  factor = 2 ** (len(mult) - 1)
  height, width = case.io['image'].shape[-2:]
  module = VQ(
    encoder=functools.partial(conv.Encoder, z_channels=z, **sizes),
    decoder=functools.partial(conv.Decoder, **sizes),
    vocab_size=args['codebook_size'],
    channels=args['codebook_embed_dim'],
    grid=(height // factor, width // factor),
    normalize=args['codebook_l2_norm'],
  )
  return Bound(case, module, table.Tokenizer())


def tokenizer(case: Case) -> Iterator[tuple[str, Any]]:
  io, codec = case.io, tokenizer_of(case)
  grid = codec.module.spec.grids[0]

  def encode(codec, image):
    codes = codec.encode(image).values
    quant = codec.embed(codes).reshape(len(image), *grid, -1)
    whole = codec(image)
    losses = whole.losses['codebook'], whole.losses['commitment']
    return codec.enc(image), codec.analyse(image), codes, quant, whole, losses

  out, z, codes, quant, whole, losses = codec(encode, nhwc(io['image']))
  yield 'encoder_out', nchw(out)
  yield 'z', nchw(z)
  yield 'idx', codes
  yield 'quant', nchw(quant)
  yield 'recon', nchw(whole.image)
  yield 'vq_loss', losses[0]
  yield 'commit_loss', losses[1]

  def decode(codec, values):
    latent = codec.embed(values).reshape(len(values), *grid, -1)
    return latent, codec.synthesise(latent)

  latent, image = codec(decode, io['rand_idx'])
  yield 'rand_quant', nchw(latent)
  yield 'rand_image', nchw(image)
