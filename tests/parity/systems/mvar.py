"""M-VAR's transformer."""

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from arvision.build import build
from arvision.configs import common
from arvision.configs.mvar import parts
from arvision.importers import mvar as table
from arvision.importers import var as var_table
from arvision.layers.norm import modulate
from arvision.model import sample
from arvision.quantizers.lookup import Lookup
from arvision.random import Draw
from arvision.structs import Tokens
from arvision.tasks import assemble
from arvision.tokenizers.residual import ResidualPyramid
from tests.parity.case import (
  Case,
  Subset,
  System,
  captured,
  imported,
  nchw,
)
from tests.parity.stated import Stated
from tests.parity.systems import var
from tests.parity.systems.flexvar import Given

INPUTS = {'label', 'x_BLCv_wo_first_l'}


def config_of(args: Stated) -> ConfigDict:
  """Our config of the official constructor's arguments."""
  args.only(shared_aln=False)  # the released code cannot run it
  mamba, config = args.inner('mamba'), common.new()
  mamba.only(ngroups=1, norm_before_gate=False)
  parts.mvar(
    config,
    scales=tuple(args['patch_nums']),
    vocab_size=args['vocab'],
    classes=args['num_classes'],
    depth=args['depth'],
    width=args['embed_dim'],
    heads=args['num_heads'],
    state=mamba['d_state'],
    head=mamba['headdim'],
    drop_path=0.0,
  )
  config.backbone.block.mixer.update(
    conv=mamba['d_conv'], expand=mamba['expand'], epsilon=mamba['norm_eps']
  )
  var.set_blocks(config, args)
  return config


def _codec(case):
  """The tokenizer between encoder and decoder, and its weights."""
  args = case.args
  channels, share = args['Cvae'], args['share_quant_resi']
  module = ResidualPyramid(
    encoder=functools.partial(Given, z_channels=channels),
    decoder=functools.partial(Given, z_channels=channels),
    quantizer=functools.partial(
      Lookup, vocab_size=args['vocab'], channels=channels
    ),
    scales=tuple(args['patch_nums']),
    phi_share=share,
    quant_kernel=0,
  )

  def touch(module):
    latent = module.to_latent(module.spec.blank())
    return [phi(latent) for phi in module.phi]

  init = functools.partial(module.init, method=touch)
  shapes = jax.eval_shape(init, jax.random.key(0))['params']
  own = Subset(case, lambda key: key.startswith('quantize.'))
  form = var_table.Tokenizer(own_phi=not share)
  return module, {'params': imported(own, form, nn.unbox(shapes))}


def _block(seen: dict) -> Iterator[tuple[str, Any]]:
  """The arrays inside of the first block."""
  parts = seen['modules']['backbone']['stack']['layers']['block']
  first = lambda part: jax.tree.map(lambda x: x[0], part['__call__'][0])
  yield 'attn0_out', first(parts['attention'])[0]
  _, scale, shift = first(parts['adaln'])[1]
  yield 'mamba0_in', modulate(first(parts['norm2']), scale, shift)
  mixer = parts['mixer']
  flat = lambda x: x.reshape(*x.shape[:2], -1)
  each = [flat(first(mixer[name])) for name in ('zx', 'bc', 'dt')]
  yield 'mamba0_in_proj', jnp.concatenate(each, -1)
  yield 'mamba0_out', first(mixer)[0]


def transformer(case: Case) -> Iterator[tuple[str, Any]]:
  io, config = case.io, config_of(case.args)
  scales = tuple(case.args['patch_nums'])
  model = assemble.make_model(config)
  recorded = var.Teacher(jnp.asarray(io['x_BLCv_wo_first_l']), scales)
  one = var.Teacher(recorded.rows[:1], scales)
  shapes = assemble.model_shapes(model, lambda: one)
  own = Subset(case, lambda key: key.startswith('mvar.'), 'mvar.')
  params = imported(own, table.Transformer(), shapes)
  codec, variables = _codec(case)

  inputs = {'label': io['label']}
  tokens = codec.spec.blank(len(io['label']))  # the recorded input is given
  seen = captured(model, params, tokens, inputs, recorded, method='logits')
  yield from _block(seen)
  yield 'after_block0', seen['blocks'][0]
  yield 'after_last_block', seen['blocks'][-1]
  yield 'logits', seen['modules']['head']['linear']['__call__'][0]

  var.greedy(case)
  run = case.generation
  inputs = {'label': np.int32(run['labels'])}
  config.sampler.guidance.end = 1 + run['cfg']
  sampler = build(config.sampler, 'sampler')

  @jax.jit
  def generate(params, variables):
    kept: list[jax.Array] = []

    def greedy(logits, draw):
      kept.append(logits)
      return jnp.argmax(logits, -1).astype(jnp.int32)

    own = dataclasses.replace(sampler, logits_filter=greedy)
    bound = codec.bind(variables)
    draw = Draw.create(0, jnp.arange(len(inputs['label'])))
    codes = sample(model, params, own, inputs, draw, bound).values
    ends = np.cumsum([side**2 for side in scales])
    sums = [bound.to_latent(Tokens(codes[:, :end])) for end in ends]
    return jnp.concatenate(kept, 1), codes, jnp.stack(sums, 1)

  logits, codes, sums = generate(params, variables)
  yield 'gen_logits', logits
  yield 'gen_idx', codes
  yield 'gen_f_hat_scales', nchw(sums)


SYSTEMS = {'models.mvar.MVAR': System(transformer, INPUTS)}
