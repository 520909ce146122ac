"""ELM: binary autoencoder and transformer."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from arvision.build import build
from arvision.configs import common
from arvision.configs.elm import parts
from arvision.importers import elm as table
from arvision.metrics import total
from arvision.model import sample
from arvision.process.guidance import guide
from arvision.random import Draw, Replay
from arvision.structs import Tokens, TokenSpec
from arvision.tasks import assemble
from tests.parity.case import (
  Bound,
  Case,
  System,
  captured,
  imported,
  nchw,
  nhwc,
)
from tests.parity.systems import llamagen

TOKENIZER_INPUTS = {'image', 'uniform', 'rand_bits'}
INPUTS = {'idx', 'cond'}


def tokenizer_of(case: Case) -> Bound:
  args = case.args
  args.only(quantizer='binary')
  args.ignore('beta')  # of the quantiser with a codebook
  # Of the losses.
  args.ignore('code_weight', 'perceptual_weight', 'disc_start_step')
  args.ignore('disc_weight_max', 'disc_layers', 'ndf', 'diff_aug')
  mult = tuple(args['ch_mult'])
  factor = 2 ** (len(mult) - 1)
  height, width = case.io['image'].shape[-2:]
  attending = args['attn_resolutions']
  block = parts.bae(
    grid=(height // factor, width // factor),
    bits=args['codebook_size'],
    channels=args['emb_dim'],
    attention_levels=tuple(
      i for i in range(len(mult)) if args['img_size'] // 2**i in attending
    ),
    norm_first=args['norm_first'],
    deterministic=args['deterministic'],
    signed=args['use_tanh'],
    code=1.0,
    gen_mul=args['gen_mul'],
    ch=args['nf'],
    ch_mult=mult,
    res_blocks=args['res_blocks'],
    image_channels=args['n_channels'],
  )
  return Bound(case, build(block, 'tokenizer'), table.Tokenizer())


def tokenizer(case: Case) -> Iterator[tuple[str, Any]]:
  io, codec = case.io, tokenizer_of(case)
  image = 2 * nhwc(io['image']) - 1
  # Without a recorded draw nothing is sampled.
  uniform = nhwc(io['uniform']) if 'uniform' in io else None

  def encode(codec, image):
    latent = codec.encode_latents(image)
    found = {
      'h': codec.enc((image + 1) / 2),
      'latent': latent,
      'bits': codec.to_latent(codec.encode(image)),
    }
    if uniform is not None:
      # Training samples unless the model is deterministic.
      draw = Replay({'bits': uniform}, size=len(image))
      quant = codec.quant.clone(deterministic=False, parent=None)
      found['bits_sampled'] = quant.embed(quant(latent, draw).values)
    return found, codec.quant.spread(latent)['code']

  found, loss = codec(encode, image)
  yield 'h', nchw(found['h'])
  # Of a signed code it is recorded as it is, or as a probability.
  latent = found['latent']
  as_it_is = np.min(io.get('prob', -1)) < 0
  signed = codec.module.static.signed and not as_it_is
  yield 'prob', nchw((latent + 1) / 2 if signed else latent)
  yield 'code_loss', loss

  def decode(codec, bits):
    return codec.post_quant_conv(bits), (codec.decode_latents(bits) + 1) / 2

  for end, image in ('', 'recon'), ('_sampled', 'recon_sampled'):
    if f'bits{end}' not in found:
      continue
    bits = found[f'bits{end}']
    whole = nchw(bits).astype(np.int32)
    recorded = io.get(f'bits{end}', whole)
    yield f'bits{end}', whole if np.min(recorded) < 0 else np.maximum(whole, 0)
    quant, pixels = codec(decode, bits)
    yield f'quant{end}', nchw(quant)
    yield image, nchw(pixels)
  if 'rand_bits' in io:
    bits = np.float32(nhwc(io['rand_bits']))
    yield 'rand_image', nchw(codec(decode, bits)[1])


def config_of(case: Case) -> ConfigDict:
  args = case.args
  args.only(cls_row=False, pause=False, attn_type='sdp', pos_type='rope2d')
  args.ignore('split_embder', 'pause_num', 'model_type', 'cls_token_num')
  # An option of the official constructor is the number of bits of a part.
  vocab_size = 2 ** args['code_dim']
  args.only(vocab_per_sub_code=vocab_size)
  return llamagen.config_of(
    args,
    parts.elm,
    vocab_size=vocab_size,
    parts=args['token_each'],
    adaln=args['use_adaLN'],
    classes=args['num_classes'],
  )


def transformer(case: Case) -> Iterator[tuple[str, Any]]:
  io, config = case.io, config_of(case)
  model = assemble.make_model(config)
  spec = TokenSpec(
    config.head.vocab_size, config.head.parts, 1, model.layout.grids
  )
  shapes = assemble.model_shapes(model, tokens=spec.blank())
  params = imported(case, table.Transformer(), shapes)
  batch, inputs = len(io['cond']), {'label': io['cond']}
  ids = io['idx'].reshape(batch, *spec.shape)

  @jax.jit
  def logits(params, ids, null):
    return model.apply(
      {'params': params}, Tokens(ids), inputs, None, null, method='logits'
    )

  none, all_ = np.zeros(batch, bool), np.ones(batch, bool)
  seen = captured(model, params, Tokens(ids), inputs, method='logits')
  yield 'embed', seen['embed']
  yield 'after_block0', seen['blocks'][0]
  yield 'after_last_block', seen['blocks'][-1]
  norm = seen['modules']['backbone']['norm']
  yield 'final_norm', norm.get('norm', norm)['__call__'][0]
  got = logits(params, ids, none)
  yield 'logits', got.reshape(batch, -1, got.shape[-1])
  loss, metrics = jax.jit(
    lambda params: model.apply(
      {'params': params},
      Tokens(ids),
      inputs,
      Draw.create(0, jnp.arange(batch)),
      train=False,
      method='losses',
    )
  )(params)
  yield 'loss', total(loss).compute()
  yield 'accuracy', metrics['token_accuracy'].compute()
  yield 'freqs_cis', llamagen.table_of_rotations(case.args, 1)

  sampler = _sampler(case, config)

  @jax.jit
  def generate(params):
    draw = Draw.create(0, jnp.arange(batch))
    codec = NoTokenizer(spec)
    return sample(model, params, sampler, inputs, draw, codec).values

  found = generate(params)
  yield 'gen_idx', found.reshape(*found.shape[:2], -1)
  cond, null = (logits(params, found, n) for n in (none, all_))
  steps = np.arange(found.shape[1])
  scale = jnp.broadcast_to(sampler.guidance(steps, len(steps)), steps.shape)
  scale = scale.reshape(-1, *[1] * (cond.ndim - 2))
  merged = guide(cond, null, scale)
  merged = merged.reshape(*found.shape[:2], -1, merged.shape[-1])
  yield 'gen_logits_cfg', llamagen.guided(case, merged)


@dataclasses.dataclass
class NoTokenizer:
  """Stands for a tokenizer: says what tokens are."""

  spec: TokenSpec


def _sampler(case, config):
  """The sampler of a recorded call of the official `generate_cfg`."""
  run, guidance = case.generation, config.sampler.guidance
  run.greedy()
  run.only(argument_0=None, argument_2=case.args['block_size'])
  run.ignore('temperature', 'top_k', 'top_p')  # of the one best id
  guidance.scale = run['cfg_scale']
  shape = run.get('cfg_schedule', 'constant')
  if shape == 'constant':
    config.sampler.guidance = common.block(
      type='process.guidance.Constant', scale=guidance.scale
    )
  else:
    guidance.shape = shape
  config.sampler.logits_filter.temperature = 0.0
  return build(config.sampler, 'sampler')


SYSTEMS = {
  'bae.binaryae.BinaryAutoEncoder(H)': System(tokenizer, TOKENIZER_INPUTS),
  'llama.ar_model.Transformer(ModelArgs)': System(transformer, INPUTS),
}
