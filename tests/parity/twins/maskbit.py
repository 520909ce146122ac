"""MaskBit in numpy: the generator LFQBert, and the quantiser of VQGAN+.

Source: the words of the recorded cases; markweberdev/maskbit, modeling/bert.py and
modeling/quantizer.
"""

import json
import math
import pathlib

import numpy as np

from tests.parity.case import CASES, Case
from tests.parity.twins import saved

_INPUTS = (
  'tokens',
  'label',
  'drop_label_mask',
  'gen_gumbel',
  'bits_to_indices',
)


def prenorm(folder: pathlib.Path) -> Case:
  """A case of `use_prenorm` with the sizes and inputs of the recorded one."""
  recorded = Case(CASES / 'maskbit_lfqbert')
  meta = json.loads((recorded.folder / 'meta.json').read_text())
  meta['constructor']['use_prenorm'] = True
  for name, mean in (('weight', 1.0), ('bias', 0.0)):
    entry = {'shape': [64], 'dtype': 'float32', 'mean': mean, 'std': 0.2}
    meta['weights'][f'norm_after_transformer.{name}'] = entry
  (folder / 'meta.json').write_text(json.dumps(meta))
  io = {key: recorded.io[key] for key in _INPUTS}
  return saved(folder, {**io, **arrays(saved(folder, io))})


def arrays(case: Case) -> dict[str, np.ndarray]:
  """What the network gives for a case's inputs, in float64."""
  io, args = case.io, case.meta['constructor']
  weights = {k: np.float64(v) for k, v in case.weights().items()}
  first = args['use_prenorm']

  def linear(x, key):
    return x @ weights[f'{key}.weight'].T + weights[f'{key}.bias']

  def norm(x, key):
    x = x - x.mean(-1, keepdims=True)
    y = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-12)
    return y * weights[f'{key}.weight'] + weights[f'{key}.bias']

  def attend(x, key):
    qkv = (
      x @ weights[f'{key}.in_proj_weight'].T + weights[f'{key}.in_proj_bias']
    )
    heads = qkv.reshape(*x.shape[:2], 3, args['heads'], -1)
    q, k, v = np.moveaxis(heads, (2, 3), (0, 2))
    p = np.exp(q @ k.swapaxes(-1, -2) / math.sqrt(q.shape[-1]))
    y = p / p.sum(-1, keepdims=True) @ v
    return linear(y.swapaxes(1, 2).reshape(x.shape), f'{key}.out_proj')

  def mlp(x, key):
    return linear(_gelu(linear(x, f'{key}.net.0')), f'{key}.net.2')

  def sublayer(x, f, key, inner):
    if first:
      return x + f(norm(x, f'{key}.norm'), inner)
    return norm(x + f(x, inner), f'{key}.norm')

  bits = (args['codebook_size'].bit_length() - 1) // args['codebook_splits']
  tokens = np.int64(io['tokens'])[..., None]
  values = 2.0 * (tokens >> np.arange(bits) & 1) - 1
  values[tokens[..., 0] == 2**bits] = 0
  label = np.where(io['drop_label_mask'], args['nclass'], io['label'])
  x = linear(values.reshape(*values.shape[:2], -1), 'input_proj')
  x = np.concatenate([x, weights['class_emb.weight'][label][:, None]], 1)
  x = norm(x + weights['pos_emb'], 'first_layer.0')
  blocks = [x]
  for i in range(args['depth']):
    key = f'transformer.layers.{i}'
    x = sublayer(x, attend, f'{key}.0', f'{key}.0.mha')
    x = sublayer(x, mlp, f'{key}.1', f'{key}.1')
    blocks.append(x)
  if first:
    x = norm(x, 'norm_after_transformer')
  x = norm(_gelu(linear(x, 'last_layer.0')), 'last_layer.2')
  logits = linear(x, 'prediction_layer')[:, :-1]
  return {
    'after_first_norm': blocks[0],
    'after_block0': blocks[1],
    'logits': logits.reshape(*io['tokens'].shape, 2**bits),
  }


def _gelu(x):
  return x / 2 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def lookup(folder: pathlib.Path) -> Case:
  """A case of VQGAN+ of the older layout, whose encoder is the recorded one.

  Its latents are recorded; the table and the losses are computed here.
  """
  recorded = Case(CASES / 'maskbit_tokenizer')
  meta = json.loads((recorded.folder / 'meta.json').read_text())
  args, channels = meta['constructor'], 8
  args |= {
    'quantizer_type': 'lookup',
    'codebook_size': 24,
    'entropy_gamma': 0.7,
  }
  args |= {'cls': args['cls'].replace('False', 'True')}
  args |= {'entropy_loss_temperature': 0.5}
  levels = len(args['channel_mult'])
  weights = {'quantize.embedding.weight': {'shape': [24, channels]}}
  weights['quantize.embedding.weight'] |= {'mean': 0.0, 'std': 1.0}
  for key, entry in meta['weights'].items():
    if key.startswith('decoder.up.'):
      *start, level, rest = key.split('.', 3)
      key = '.'.join((*start, str(levels - 1 - int(level)), rest))
    if not key.startswith('quantize.'):
      weights[key] = entry
  meta['weights'] = weights
  (folder / 'meta.json').write_text(json.dumps(meta))
  weights = saved(folder, {}).weights()
  codes = np.float64(weights['quantize.embedding.weight'])
  io = {key: recorded.io[key] for key in ('image', 'z')}
  z = np.moveaxis(np.float64(io['z']), 1, -1)
  far = ((z[..., None, :] - codes) ** 2).sum(-1)
  index = far.argmin(-1)
  quant = codes[index]
  p = np.exp(-(far - far.min(-1, keepdims=True)) / 0.5).reshape(-1, len(codes))
  p = p / p.sum(-1, keepdims=True)
  nats = lambda p: -(p * np.log(np.maximum(p, 1e-5))).sum(-1)
  each, mean = nats(p).mean(), 0.7 * nats(p.mean(0))
  square = ((quant - z) ** 2).mean()
  tokens = np.random.RandomState(3).randint(0, len(codes), (2, 36))
  io |= {
    'tokens': np.int32(tokens),
    'token_bits': codes[tokens],
    'idx': np.int32(index),
    'quant': np.moveaxis(quant, -1, 1),
    'commitment_loss': args['commitment_cost'] * square,
    'codebook_loss': square,
    'per_sample_entropy': each,
    'avg_entropy': mean,
    'entropy_loss': args['entropy_loss_weight'] * (each - mean),
  }
  return saved(folder, io)
