"""MaskBit: its tokenizers, and the generator LFQBert."""

import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from arvision.build import build
from arvision.configs import common
from arvision.configs.maskbit import parts
from arvision.importers import maskbit as table
from arvision.importers.table import to_weights
from arvision.model import BoundModel
from arvision.quantizers import lfq, lookup
from arvision.random import Replay
from arvision.samplers.base import Network
from arvision.structs import Tokens
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

TOKENIZER_INPUTS = {'image', 'tokens'}
GENERATOR_INPUTS = {'tokens', 'label', 'drop_label_mask', 'gen_gumbel'}


def tokenizer(case: Case, legacy: bool = False) -> Iterator[tuple[str, Any]]:
  io = case.io
  module = build(_block(case), 'tokenizer')
  form = table.Tokenizer(legacy)
  codec = Bound(case, module, form)

  # Official pixels are in [0, 1].
  def encode(codec, image):
    z, codes = codec.encode_latents(image), codec.encode(image).values
    vectors = codec.to_latent(Tokens(codes))
    return z, vectors, codes, (codec.decode_latents(vectors) + 1) / 2

  z, vectors, codes, image = codec(encode, 2 * nhwc(io['image']) - 1)
  yield 'z', nchw(z)
  yield 'quant', nchw(vectors)
  yield 'idx', codes.reshape(io['idx'].shape)
  yield 'recon', nchw(image)

  def decode(codec, tokens):
    image = codec.decode_latents(codec.to_latent(Tokens(tokens)))
    return codec.embed(tokens), (image + 1) / 2

  bits, image = codec(decode, io['tokens'])
  yield 'token_bits', bits
  yield 'decoded', nchw(image)

  # At temperature 0.01 the entropy sees the last digits of z.
  latent = jnp.asarray(nhwc(io['z']))
  losses = codec(lambda codec, z: codec.quant(z).losses, latent)
  for name in ('commitment', 'entropy', 'codebook'):
    if name in losses:
      yield f'{name}_loss', losses[name]
  if 'entropy' not in losses:
    for name in ('entropy_loss', 'per_sample_entropy', 'avg_entropy'):
      yield name, np.float32(0)  # is not computed
  else:
    each, mean = codec(_entropies, latent.reshape(-1, latent.shape[-1]))
    yield 'per_sample_entropy', each
    yield 'avg_entropy', case.args['entropy_gamma'] * mean
  back = to_weights(form, codec.params, ((1, 1),))
  for name in ('bits_to_indices', 'codebook'):
    if f'quantize.{name}' in back:
      yield name, back[f'quantize.{name}']


def _entropies(codec, latent):
  """Of the codes of latents (n, c): mean entropy, entropy of the mean."""
  quant = codec.quant
  if isinstance(quant, lfq.LFQ):
    return lfq.entropies(latent, quant.temperature)
  if isinstance(quant, lookup.UnitLookup):
    latent = lookup.normalized(latent)
  return quant.entropies.entropies(lookup.distances(latent, quant.codes))


def _block(case):
  """Our block of the official constructor's arguments."""
  args = case.args
  args.only(num_resolutions=len(args['channel_mult']), finetune_decoder=False)
  mult = tuple(args['channel_mult'])
  height, width = case.io['image'].shape[-2:]
  factor = 2 ** (len(mult) - 1)
  config = parts.maskbit_tokenizer(
    quantizer=_quantizer(args),
    grid=(height // factor, width // factor),
    ch=args['hidden_channels'],
    ch_mult=mult,
    res_blocks=args['num_res_blocks'],
    image_channels=args['num_channels'],
  )
  blocks = args.get('num_res_blocks_decoder', args['num_res_blocks'])
  config.decoder.res_blocks = blocks
  if not args['sample_with_conv']:
    config.encoder.type = 'layers.maskgit_conv.Encoder'
  return config


def _quantizer(args):
  channels = args['token_size']
  if args['quantizer_type'] == 'lookup':
    unit = args.get('use_l2_normalisation', False)
    make = common.unit_lookup if unit else common.lookup
    quantizer = make(args['codebook_size'], channels)
    quantizer.commitment = args['commitment_cost']
    quantizer.entropy = args['entropy_loss_weight']
    quantizer.entropies = common.block(
      type='quantizers.lookup.ClampedEntropy',
      gamma=args['entropy_gamma'],
      temperature=args['entropy_loss_temperature'],
    )
    return quantizer
  args.only(quantizer_type='lookup-free', codebook_size=2**channels)
  return parts.lfq(
    channels,
    commitment=args['commitment_cost'],
    entropy=args['entropy_loss_weight'],
    temperature=args['entropy_loss_temperature'],
    gamma=args['entropy_gamma'],
  )


def loaded(case: Case) -> tuple[ConfigDict, Any, Any]:
  """Our config of a case, the model, and its parameters."""
  args = case.args
  bits, splits = args['codebook_size'].bit_length() - 1, args['codebook_splits']
  grid = (args['img_size'] // args['input_stride'],) * 2
  config = common.new()
  config.tokenizer = parts.maskbit_tokenizer(
    quantizer=parts.lfq(bits), grid=grid, ch=32, ch_mult=(1,)
  )
  parts.maskbit(
    config,
    bits=bits,
    splits=splits,
    grid=grid,
    classes=args['nclass'],
    depth=args['depth'],
    width=args['hidden_dim'],
    heads=args['heads'],
    hidden=args['mlp_dim'],
    dropout=args['dropout'],
    steps=1,
    temperature=0.0,
    prenorm=args['use_prenorm'],
    guidance=common.block(type='process.guidance.Constant'),
  )
  model = assemble.make_model(config)
  tokenizer = assemble.make_tokenizer(config)
  shapes = assemble.model_shapes(
    model, lambda: tokenizer.bind({}), tokenizer.spec.blank()
  )
  return config, model, imported(case, table.Generator(), shapes)


class Greedy(Replay):
  """Recorded noise; the best id instead of a sampled one."""

  def categorical(self, name, logits):
    return jnp.argmax(logits, -1).astype(jnp.int32)


def generator(case: Case) -> Iterator[tuple[str, Any]]:
  io = case.io
  config, model, params = loaded(case)
  codec = assemble.make_tokenizer(config).bind({})
  bound = BoundModel(model, {'params': params}, codec)
  label, splits = jnp.asarray(io['label']), case.args['codebook_splits']
  size, batch = config.head.vocab_size, len(io['label'])
  shape = codec.spec.blank(batch).values.shape
  given = jnp.asarray(io['tokens']).reshape(shape)
  step = model.layout.runs[0].step(0)
  official = lambda x: x.reshape(batch, -1, splits, *x.shape[len(shape) :])

  def forward(params):
    mask = given == size
    slots = bound.feed_slots(jnp.where(mask, 0, given), step, mask)
    null = jnp.asarray(io['drop_label_mask'], bool)
    args = slots, {'label': label}, null
    z, query = model.apply({'params': params}, *args, method='hidden')
    return slots.values, model.apply(
      {'params': params}, z, query, method='field'
    )

  values, logits = jax.jit(forward)(params)
  slots = bound.feed_slots(
    jnp.where(given == size, 0, given), step, given == size
  )
  seen = captured(
    model,
    params,
    slots,
    {'label': label},
    jnp.asarray(io['drop_label_mask'], bool),
    method='hidden',
  )
  last = lambda x: jnp.roll(x, -1, 1)  # the class is the last slot there
  yield 'bits_in', values[:, 1:]
  yield 'input_proj', seen['modules']['backbone']['input']['__call__'][0][:, 1:]
  yield 'after_first_norm', last(seen['embed'])
  yield 'after_block0', last(seen['blocks'][0])
  yield 'logits', official(logits)
  back = to_weights(table.Generator(), params, ((1, 1),))
  yield 'bits_to_indices', back['bits_to_indices']
  yield from _generation(case, config, bound, official)


def _generation(case, config, bound, official):
  io, run = case.io, case.generation
  _set_sampler(config, run)
  sampler = build(config.sampler, 'sampler')
  inputs, batch = {'label': jnp.asarray(io['label'])}, len(io['label'])
  spec, count = bound.codec.spec, config.sampler.steps
  noise = jnp.asarray(io['gen_gumbel']).reshape(count, batch, *spec.shape)
  draw = Greedy({'sampler/confidence': noise}, size=batch)
  tokens, given, masked = jax.jit(
    lambda: sampler.run(bound, inputs, draw, batch)
  )()

  @jax.jit
  def guided(i, given, masked):
    """What a pass of the sampler sees and samples."""
    network = Network(sampler, bound, inputs, batch)
    step = bound.layout.runs[0].step(0)
    slots = bound.feed_slots(jnp.maximum(given, 0), step, masked)
    scale = lambda level: sampler.guidance(i, count, level)
    z, merge, _ = network.look(slots, step.readout, scale, None, False)
    logits = merge(bound.field(z, bound.query(slots, step.readout)))
    logits = sampler.logits_filter.filter(logits)
    ids, sure = sampler.policy(logits, draw.fold(i), 1 - (i + 1) / count)
    ids = jnp.where(masked, ids, given)
    return ids, jnp.where(masked, sure, 1e30), jax.nn.softmax(logits)

  passes = [guided(i, g, m) for i, (g, m) in enumerate(zip(given, masked))]
  ids, sure, probs = zip(*passes)
  width = config.head.vocab_size.bit_length() - 1  # bits of a part
  shift = width * jnp.arange(io['tokens'].shape[-1])
  yield 'gen_tokens_per_step', jnp.stack([official(x) for x in ids], 1)
  yield 'gen_probs_first', official(probs[0])
  yield 'gen_probs_last', official(probs[-1])
  flat = [x.reshape(batch, -1) for x in sure]
  yield 'gen_confidence', jnp.stack(flat, 1)
  yield 'gen_tokens', jnp.sum(official(tokens.values) << shift, -1)


def _set_sampler(config, run):
  """The sampler of a recorded call."""
  run.says('kind', 'greedy')
  config.sampler.steps = count = run['num_steps']
  config.sampler.schedule = run['mask_schedule_strategy']
  config.sampler.policy.temperature = float(run['randomize_temperature'])
  config.sampler.logits_filter.temperature = float(run['softmax_temperature'])
  scale, annealing = float(run['guidance_scale']), run['guidance_annealing']
  run.ignore('scale_pow')  # of the cosine alone
  run.ignore('argument_0')  # '...'
  if annealing == 'none':
    guidance = common.block(type='process.guidance.Constant', scale=1 + scale)
  elif annealing == 'linear':
    guidance = common.block(
      type='process.guidance.Linear', end=1 + scale, over=count
    )
  elif annealing == 'cosine':
    guidance = parts.guidance(scale, float(run['scale_pow']))
  else:
    raise run.refused('guidance_annealing', 'an unknown schedule')
  config.sampler.guidance = guidance


SYSTEMS = {
  'modeling.conv_vqgan.ConvVQModel(config, legacy=False)': System(
    tokenizer, TOKENIZER_INPUTS
  ),
  'modeling.conv_vqgan.ConvVQModel(config, legacy=True)': System(
    functools.partial(tokenizer, legacy=True), TOKENIZER_INPUTS
  ),
  'modeling.bert.LFQBert': System(generator, GENERATOR_INPUTS),
}
