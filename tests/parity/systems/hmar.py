"""HMAR: both networks, their losses, sampling with refined scales, training."""

import dataclasses
import functools
import math
import re
from collections.abc import Iterator
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from arvision.build import build
from arvision.configs import common
from arvision.configs.hmar import parts
from arvision.feeds.residual import NormalWeights, Residual
from arvision.importers import hmar as table
from arvision.importers import var as var_table
from arvision.model import BoundModel
from arvision.process.logits import LogitsFilter
from arvision.quantizers.lookup import AngleLookup, Lookup
from arvision.random import Replay
from arvision.structs import Tokens
from arvision.tasks import assemble
from arvision.tokenizers.residual import ResidualPyramid
from tests.parity.case import (
  Case,
  System,
  imported,
  intermediates,
  nchw,
)
from tests.parity.stated import Stated
from tests.parity.systems import var
from tests.parity.systems.flexvar import Given

INPUTS = {'label', 'idx', 'mask_positions', 'gen_exponential'}


def config_of(args: Stated, masked: bool, **sampling) -> ConfigDict:
  """Our config of the official constructor's arguments."""
  args.ignore('using_block_sparse_attn')  # computes the same
  args.ignore('share_quant_resi', 'quant_resi', 'Cvae')  # of the tokenizer
  if masked and args['patch_nums'][0] != 1:
    raise args.refused('patch_nums', 'masked places count from one token on')
  config, build_parts = common.new(), parts.next_scale
  config.task = common.block(type='tasks.autoregressive.Autoregressive')
  if masked:
    build_parts = functools.partial(parts.hmar, passes=())
  build_parts(
    config,
    last=args['n_layers_train'],
    scales=tuple(args['patch_nums']),
    vocab_size=args['vocab'],
    classes=args['num_classes'],
    depth=args['depth'],
    width=args['embed_dim'],
    heads=args['num_heads'],
    shared_adaln=args.get('shared_aln', False),
    drop_path=0.0,
    **{'guidance': 0.0, **sampling},
  )
  var.set_blocks(config, args)
  return config


@dataclasses.dataclass(frozen=True)
class File:
  """Some weights of a case under the keys of one of HMAR's files."""

  weights: dict[str, np.ndarray]

  def file(self):
    return self.weights


def views(case: Case) -> dict[str, dict[str, np.ndarray]]:
  """The released file, and those of the two stages that it is made of."""
  prefix = 'hmar.'
  found = {
    k.removeprefix(prefix): w
    for k, w in case.weights().items()
    if k.startswith(prefix)
  }
  trunk = case.args['depth'] - case.args['n_layers_train']

  def of_stage(own, others):
    """The keys of a stage, of which the release has those of both."""

    def renamed(key):
      if match := re.match(rf'({own}|base)_blocks\.(\d+)\.', key):
        number = int(match[2]) + trunk * (match[1] == own)
        return f'blocks.{number}.{key[match.end() :]}'
      return key.removeprefix(f'{own}_') if 'head' in key else key

    kept = [k for k in found if not re.match(rf'{others}_(blocks|head)', k)]
    return {renamed(k): found[k] for k in kept}

  nsp = of_stage('ns', 'mask')
  nsp['word_embed.bias'] = nsp.pop('word_embed_bias')
  del nsp['mask_embed.weight']
  return {'merged': found, 'nsp': nsp, 'mask': of_stage('mask', 'ns')}


def model_of(config: ConfigDict, case: Case) -> tuple[Any, Any]:
  """The model, and the shapes of its parameters."""
  model, scales = assemble.make_model(config), tuple(case.args['patch_nums'])
  tokens, channels = model.layout.tokens, case.args['Cvae']
  rows = jnp.zeros((1, tokens - scales[0] ** 2, channels))
  codec = var.Teacher(rows, scales, rows)
  return model, assemble.model_shapes(model, lambda: codec)


def codec_of(case: Case) -> Any:
  """The tokenizer without encoder and decoder, bound to its weights."""
  args, channels = case.args, case.args['Cvae']
  share = args.get('share_quant_resi', 4)
  lookup = AngleLookup if args.get('using_znorm') else Lookup
  empty = functools.partial(Given, z_channels=channels)
  module = ResidualPyramid(
    encoder=empty,
    decoder=empty,
    quantizer=functools.partial(
      lookup, vocab_size=args['vocab'], channels=channels
    ),
    scales=tuple(args['patch_nums']),
    phi_ratio=abs(args.get('quant_resi', 0.5)),
    phi_share=share,
    quant_kernel=0,
  )
  side = args['patch_nums'][-1]
  image = jnp.zeros((1, side, side, channels))
  init = functools.partial(module.init, method='encode')
  shapes = nn.unbox(jax.eval_shape(init, jax.random.key(0), image)['params'])
  own = {k: w for k, w in case.weights().items() if k.startswith('quantize.')}
  form = var_table.Tokenizer(own_phi=not share)
  return module.bind({'params': imported(File(own), form, shapes)})


def mask_draws(share: float, places: np.ndarray, batch: int, tokens: int):
  """The draws of a mask at some places after the first token, -1 for none."""
  order = np.ones(tokens, np.float32)
  order[1 + places[places >= 0]] = 0
  return {
    'share': np.full(batch, share, np.float32),
    'order': np.tile(order, (batch, 1)),
  }


def network(case: Case) -> Iterator[tuple[str, Any]]:
  io, args = case.io, case.args
  batch, inputs = len(io['label']), {'label': io['label']}
  tokens, codec, files = Tokens(io['idx']), codec_of(case), views(case)
  nsp, shapes = model_of(config_of(args, False), case)
  nsp_params = imported(File(files['nsp']), table.NextScale(), shapes)
  first, count = args['patch_nums'][0] ** 2, nsp.layout.tokens

  share = case.training['p_mask']
  # Recorded within each scale; 0 is the first token after the first scale.
  sides = [side**2 for side in args['patch_nums'][1:]]
  counts = [math.ceil(n * share) for n in sides]
  starts = np.repeat(np.cumsum([0, *sides[:-1]]), counts)
  places = io['mask_positions'] + starts
  draw = Replay(mask_draws(share, places, batch, count), size=batch)

  @jax.jit
  def given():
    slots, _ = nsp.feed.train(tokens, nsp.layout, codec, draw)
    own = [
      codec.view(codec.merge(codec.canvas(batch), tokens.values[:, at], s), s)
      for s in range(1, nsp.layout.steps)
      for at in [nsp.layout.entity_of_token == s]
    ]
    return slots.values[:, first:], jnp.concatenate(own, 1)

  yield from zip(('ns_input', 'mask_input'), given())

  def seen(model, params, end):
    out, found = intermediates(
      model, params, tokens, inputs, codec, None, draw, method='teacher_forced'
    )
    z, query = out
    logits = model.apply({'params': params}, z, query, method='field')
    stacks = [
      found['backbone'][name]['layers']['block']['__call__'][0][0]
      for name in ('stack', f'stack_last{end}')
      if name in found['backbone']
    ]
    blocks = jnp.concatenate([b.reshape(-1, *b.shape[-3:]) for b in stacks])
    return logits, blocks, found['backbone']['_embed'][0]

  logits, blocks, _ = seen(nsp, nsp_params, '')
  yield 'nsp_logits', logits
  yield 'nsp_after_block0', blocks[0]
  yield 'nsp_after_last_block', blocks[-1]

  cross_entropy = optax.softmax_cross_entropy_with_integer_labels
  each = cross_entropy(logits, io['idx'])
  feeds = {
    'none': Residual(),
    'equal': Residual(1.0),
    'lognorm': NormalWeights(),
  }
  for name, feed in feeds.items():
    weight = feed.weights(nsp.layout)
    weight = weight / (count if name == 'none' else 1)
    yield f'nsp_weight_{name}', weight[None]
    yield f'nsp_loss_{name}', (each * weight).sum(1).mean()

  config = config_of(args, True)
  both, shapes = model_of(config, case)
  params = imported(File(files['merged']), table.Transformer(), shapes)
  found = np.flatnonzero(both.feed.masked(draw, both.layout)[0]) - 1
  same = {*found.tolist()} == {*places.tolist()}
  yield 'mask_index', places if same else found
  logits, blocks, embedded = seen(both, params, '_masked')
  yield 'mp_logits', logits
  yield 'mp_block0_in', embedded
  yield 'mp_after_block0', blocks[0]
  each = cross_entropy(logits, io['idx'])[:, places + 1]
  yield 'mp_loss_mask_unweighted', each.mean()
  # As released: with the weight of the token before.
  weight = NormalWeights().weights(both.layout)[places]
  yield 'mp_loss_lognorm', (each * weight).sum(1).mean()
  yield from generation(case, config, both, params, codec)


@flax.struct.dataclass
class Races:
  """Draws that recorded exponentials decide: the id of the largest p / e.

  Attributes:
    passes: the draws of every entity, or of every pass of an entity.
    noise: (b, t, v) of the first pass, None for a draw of all entities.
  """

  passes: tuple
  noise: Any = None

  @property
  def batch(self) -> int:
    return len(jax.tree.leaves(self.passes)[0])

  def fold(self, i):
    return self.passes[i]

  def categorical(self, name, logits):
    return jnp.argmax(jax.nn.softmax(logits) / self.noise, -1).astype(jnp.int32)


@dataclasses.dataclass(frozen=True)
class Noted(LogitsFilter):
  """A filter that keeps what it was given and what it sampled."""

  log: list = dataclasses.field(default_factory=list)

  def __call__(self, logits, draw):
    ids = super().__call__(logits, draw)
    self.log.append((logits, ids))
    return ids


def generation(case, config, model, params, codec) -> Iterator[tuple[str, Any]]:
  io, run, layout = case.io, case.generation, model.layout
  run.only(more_smooth=False, kv_cache=False)
  run.ignore('rows_per_pass', 'g_seed', 'num_samples')
  sides = [side**2 for side in case.args['patch_nums']]
  schedule = [[n] for n in sides]
  if run.get('mask', True):
    schedule = run['mask_schedule']
  cfg, labels = run['cfg'], np.int32(run['labels'])
  config.sampler.update(
    passes=tuple(map(tuple, schedule)),
    logits_filter=common.block(
      type='process.logits.LogitsFilter', top_k=run['top_k'], top_p=run['top_p']
    ),
  )
  config.sampler.guidance.end = 1 + cfg
  config.sampler.refining.scale = 1 + 1e-6 * cfg
  plain = build(config.sampler, 'sampler')
  rows = [n for n, passes in zip(sides, schedule) for _ in passes]
  noise = np.split(io['gen_exponential'], np.cumsum(rows)[:-1], axis=1)
  races, at = [], 0
  for passes in schedule:
    own = [Races((), jnp.asarray(x)) for x in noise[at : at + len(passes)]]
    races.append(Races(tuple(own), own[0].noise))
    at += len(passes)

  @jax.jit
  def generate(params):
    noted = Noted(top_k=run['top_k'], top_p=run['top_p'])
    sampler = dataclasses.replace(plain, logits_filter=noted)
    bound = BoundModel(model, {'params': params}, codec)
    label = {'label': labels}
    tokens, masks = sampler.loop(bound, label, Races(tuple(races)), len(labels))
    return tokens.values, masks, noted.log

  codes, masks, log = generate(params)
  yield 'gen_logits', jnp.concatenate([logits for logits, _ in log], 1)
  yield 'gen_draws', jnp.concatenate([ids for _, ids in log], 1)
  yield 'gen_idx', codes
  # A pass follows the one whose probabilities chose what it masks.
  chosen, at = [], 0
  for own in masks:
    for i, mask in enumerate(own):
      logits, ids = log[at + i]
      p = jax.nn.softmax(plain.logits_filter.filter(logits), -1)
      p = jnp.take_along_axis(p, ids[..., None], -1)[..., 0]
      order = jnp.argsort(jnp.where(mask, p, jnp.inf), -1)
      chosen.append(order[:, : int(mask[0].sum())])
    at += 1 + len(own)
  yield 'gen_masked_positions', jnp.concatenate(chosen, 1)

  @jax.jit
  def cumulated(codes):
    canvas, sums = codec.canvas(len(codes)), []
    for s in range(layout.steps):
      canvas = codec.merge(canvas, codes[:, layout.entity_of_token == s], s)
      sums.append(canvas)
    return jnp.stack(sums, 1)

  yield 'gen_f_hat_scales', nchw(cumulated(codes))


SYSTEMS = {
  'models.hmar.HMAR (released merged model), models.nsp.NextScalePrediction, '
  'models.mp.MaskedPrediction, models.quant.VectorQuantizer2': System(
    network, INPUTS
  ),
}
