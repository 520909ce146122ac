"""LlamaGen: transformer and tokenizer."""

import functools
from collections.abc import Callable, Iterator
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
from arvision.quantizers.lookup import Lookup, UnitLookup
from arvision.random import Draw
from arvision.structs import Tokens
from arvision.tasks import assemble
from arvision.tokenizers.autoencoder import Autoencoder
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
INPUTS = {'idx', 'cond', 'label', 'emb_mask', 'valid'}


def config_of(
  args: Stated, make: Callable[..., None], **sizes: Any
) -> ConfigDict:
  """Our config of the official constructor's arguments.

  Args:
    args: of LlamaGen's class, or of one with its arguments.
    make: fills a config, `parts.llamagen` or its like.
    **sizes: further arguments of it, or other ones.
  """
  # The rows of the table of classes tell whether labels are dropped.
  args.ignore('class_dropout_prob', 'initializer_range')
  args.ignore('max_batch_size', 'max_seq_len')
  heads, width = args['n_head'], args['dim']
  if args.get('n_kv_head') not in (None, heads):
    raise args.refused('n_kv_head', 'fewer keys than queries')
  config, side = common.new(), round(args['block_size'] ** 0.5)
  if 'vocab_size' not in sizes:
    sizes['vocab_size'] = args['vocab_size']
  make(
    config,
    grid=(side, side),
    depth=args['n_layer'],
    width=width,
    heads=heads,
    hidden=args.get('ffn_hidden') or _hidden(args, width),
    dropout=0.0,
    **sizes,
  )
  args.ignore('multiple_of', 'ffn_dim_multiplier')  # where the width is stated
  config.backbone.rotary.base = float(args.get('rope_base', 10000))
  backbone, epsilon = config.backbone, args.get('norm_eps', 1e-5)
  last = backbone.last_norm
  backbone.block.norm.epsilon = last.get('norm', last).epsilon = epsilon
  return config


def _hidden(args, width):
  """The inner width of the MLP where it is not stated."""
  hidden = int((args.get('ffn_dim_multiplier') or 1) * int(8 * width / 3))
  multiple = args.get('multiple_of', 256)
  return -(-hidden // multiple) * multiple


def set_sampler(config: ConfigDict, case: Case) -> None:
  """The sampler of a recorded call of LlamaGen's `generate`."""
  run = case.generation
  run.greedy(sample_logits=False)
  run.only(argument_2=case.args['block_size'])
  run.ignore('top_k', 'top_p', 'temperature')  # of the one best code
  # The official code guides with scales above 1 alone.
  config.sampler.guidance.scale = max(run['cfg_scale'], 1.0)
  last = run.get('cfg_interval', -1)
  # The official number counts the tokens after the first.
  config.sampler.guidance.until = last + 2 if last > -1 else None
  config.sampler.logits_filter.temperature = 0.0
  config.sampler.logits_filter.top_k = 0


def loaded(case: Case) -> tuple[ConfigDict, Any, Any]:
  """Config, model and parameters of a transformer case."""
  args = case.args
  length = args.get('cls_token_num', 1)
  if args['model_type'] == 't2i':
    args.ignore('num_classes')
    config = config_of(
      args, parts.llamagen_t2i, length=length, channels=args['caption_dim']
    )
  else:
    args.only(cls_token_num=1)
    args.ignore('caption_dim', 'num_classes')
    # Without label dropping the official table has no row for null, and ours
    # takes its last class for it.
    table_of_classes = 'cls_embedding.embedding_table.weight'
    rows = case.meta['weights'][table_of_classes]['shape'][0]
    config = config_of(args, parts.llamagen, classes=rows - 1)
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
  yield 'freqs_cis', table_of_rotations(case.args, case.args['cls_token_num'])
  if 'emb_mask' in io:
    yield 'logits_masked', logits(params, padded, io['idx'], none)
    if 'valid' in io:
      yield 'loss_masked_valid', _weighted(model, params, padded, io)
    inputs = padded

  set_sampler(config, case)
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
  yield 'gen_logits_cfg', guided(case, guide(cond, null, scale[:, None]))


def guided(case: Case, logits: Any) -> Any:
  """The recorded logits, of which no case says what temperature did to them."""
  run = case.generation
  if run.get('temperature', 1.0) != 1.0:
    return run.refused('temperature', 'logits before or after it')
  return logits


def _weighted(model, params, inputs, io):
  """The mean loss over the examples that count."""

  @jax.jit
  def terms(params):
    return model.apply(
      {'params': params},
      Tokens(io['idx']),
      inputs,
      Draw.create(0, np.arange(len(io['idx']))),
      weight=io['valid'],
      train=False,
      method='losses',
    )[0]

  return total(terms(params)).compute()


def table_of_rotations(args: Stated, prefix: int) -> np.ndarray:
  """Rotations of the slots of a condition and of all tokens.

  Args:
    args: of the official constructor.
    prefix: slots of the condition.
  """
  side = round(args['block_size'] ** 0.5)
  coords = np.indices((side, side), np.float32).reshape(2, -1).T
  none = np.full((prefix, 2), np.nan, np.float32)
  head = args['dim'] // args['n_head']
  turns = rotations(np.concatenate([none, coords]), head, args['rope_base'])
  return np.moveaxis(turns, 0, -1)


def tokenizer_of(case: Case) -> Bound:
  args = case.args
  args.ignore('codebook_show_usage', 'dropout_p')
  sizes = {'ch': args['ch'], 'res_blocks': args['num_res_blocks']}
  encoder, decoder = (
    {**sizes, 'ch_mult': tuple(args[f'{half}_ch_mult'])}
    for half in ('encoder', 'decoder')
  )
  factor = 2 ** (len(encoder['ch_mult']) - 1)
  height, width = case.io['image'].shape[-2:]
  quantizer = UnitLookup if args['codebook_l2_norm'] else Lookup
  module = Autoencoder(
    encoder=functools.partial(
      conv.Encoder, z_channels=args['z_channels'], **encoder
    ),
    decoder=functools.partial(conv.Decoder, **decoder),
    quantizer=functools.partial(
      quantizer,
      vocab_size=args['codebook_size'],
      channels=args['codebook_embed_dim'],
      commitment=args.get('commit_loss_beta', 0.25),
      entropy=args.get('entropy_loss_ratio', 0.0),
    ),
    grid=(height // factor, width // factor),
  )
  return Bound(case, module, table.Tokenizer())


def tokenizer(case: Case) -> Iterator[tuple[str, Any]]:
  io, codec = case.io, tokenizer_of(case)
  grid = codec.module.spec.grids[0]

  def encode(codec, image):
    codes = codec.encode(image).values
    quant = codec.embed(codes).reshape(len(image), *grid, -1)
    whole = codec(image)
    return codec.enc(image), codec.encode_latents(image), codes, quant, whole

  out, z, codes, quant, whole = codec(encode, nhwc(io['image']))
  yield 'encoder_out', nchw(out)
  yield 'z', nchw(z)
  yield 'idx', codes
  yield 'quant', nchw(quant)
  yield 'recon', nchw(whole.image)
  yield 'vq_loss', whole.losses['codebook']
  yield 'commit_loss', whole.losses['commitment']
  yield 'entropy_loss', whole.losses.get('entropy', 0.0)

  def decode(codec, values):
    latent = codec.embed(values).reshape(len(values), *grid, -1)
    return latent, codec.decode_latents(latent)

  latent, image = codec(decode, io['rand_idx'])
  yield 'rand_quant', nchw(latent)
  yield 'rand_image', nchw(image)


SYSTEMS = {
  'autoregressive.models.gpt.Transformer(ModelArgs)': System(
    transformer, INPUTS
  ),
  'tokenizer.tokenizer_image.vq_model.VQModel': System(
    tokenizer, TOKENIZER_INPUTS
  ),
}
