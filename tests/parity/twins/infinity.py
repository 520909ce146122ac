"""Infinity's transformer in numpy, and cases of options that nobody recorded.

It is written from the words of a case's `conventions`, and works in float64 on the
official weights, on all scales anew at every step and without a cache. Source:
FoundationVision/Infinity, models/infinity.py and models/basic.py.
"""

import json
import pathlib
import re
import types
from typing import Any

import numpy as np

from tests.parity.case import CASES, Case
from tests.parity.twins import saved


def write(folder: pathlib.Path, layers: Any = (0,), **options: Any) -> Case:
  """A case with the arrays of the twin, of two layers of the recorded one.

  Args:
    folder: to fill.
    layers: cfg_insertion_layer of the generation.
    **options: of the official constructor.
  """
  meta = json.loads((CASES / 'infinity' / 'meta.json').read_text())
  args = meta['constructor'] = {**meta['constructor'], 'depth': 2, **options}
  count = len(args['scale_schedule'])
  cfg, tau = [1.0, 2.5, 2.0][:count], [1.0, 0.9, 0.8][:count]
  meta['weights'] = dict(_weights(meta['weights'], args))
  call = {
    'function': f'f(cfg_list={cfg}, tau_list={tau}, '
    f'cfg_insertion_layer={list(layers)}, vae_type=1)',
    'kind': 'greedy',
  }
  # The official code samples bits alone.
  meta['generation'] = call if args['use_bit_label'] else {}
  (folder / 'meta.json').write_text(json.dumps(meta))
  random, d = np.random.RandomState(7), args['vae_embed_dim']
  count = sum(h * w for _, h, w in args['scale_schedule'])
  bits = args['use_bit_label']
  io = {
    'text': random.standard_normal((13, args['text_channels'])),
    'text_lens': np.array([5, 8]),
    'x_BLC_wo_prefix': random.standard_normal((2, count - 1, d)) / d,
    'labels': random.randint(
      0, 2 if bits else 2**d, (2, count, d) if bits else (2, count)
    ),
  }
  case = saved(folder, io)
  return saved(folder, {**case.io, **arrays(case)})


def _weights(recorded, args):
  rms, width = args['rms_norm'], args['embed_dim']
  absent = [
    key
    for key, there in (
      ('scale_mul', args['cos_attn']),
      ('ca_gamma', args['cross_attn_layer_scale'] >= 0),
      ('shared_ada_lin', args['shared_aln']),
      ('.ffn.fc1.bias', not args.get('swiglu')),
      ('.ffn.fc2.bias', not args.get('swiglu')),
    )
    if not there
  ]
  one = {'shape': [width], 'dtype': 'float32', 'constant': 1.0}
  for key, entry in recorded.items():
    chunked = re.match(r'block_chunks\.(\d)\.module\.(\d)\.', key)
    if chunked:  # of two layers each
      if int(chunked[1]):
        continue
      size = args['depth'] // args['block_chunks']
      chunk, module = divmod(int(chunked[2]), size)
      name = key.removeprefix(chunked[0])
      key = f'block_chunks.{chunk}.module.{module}.{name}'
    if any(name in key for name in absent):
      continue
    if key.endswith('ada_gss') and not args['shared_aln']:
      for name, shape in (
        ('weight', [6 * width, width]),
        ('bias', [6 * width]),
      ):
        yield (
          key.replace('ada_gss', f'ada_lin.1.{name}'),
          {**entry, 'shape': shape, 'std': 0.1},
        )
      continue
    if key.endswith('ffn.fc1.weight') and args.get('swiglu'):
      yield key.replace('fc1', 'fcg'), entry
    if key.startswith('head.') and not args['use_bit_label']:
      codes = 2 ** args['vae_embed_dim']
      entry = {**entry, 'shape': [codes, *entry['shape'][1:]]}
    if rms and key.endswith('ca_norm.bias'):
      yield key.replace('ca_norm.bias', 'ln_wo_grad.weight'), one
    elif args['head_aln'] or not key.startswith('head'):
      yield from _head(key, entry, args, 0)
    elif key.startswith('head.'):
      if not (rms and key.endswith('bias')):
        yield key.replace('head', 'head.0'), _norm(key, width)
      yield from _head(key, entry, args, 1)
    bias = key.endswith('bias')
    if key.startswith('word_embed') and args.get('nm0') and not (rms and bias):
      norm = _norm(key, args['vae_embed_dim'])
      yield key.replace('word_embed', 'norm0_ve'), norm
  if rms and args['head_aln']:
    yield 'head_nm.ln_wo_grad.weight', one


def _norm(key, width):
  """The entry of a norm's part that is called like `key`."""
  mean = float(key.endswith('weight'))
  return {'shape': [width], 'dtype': 'float32', 'mean': mean, 'std': 0.2}


def _head(key, entry, args, first):
  """The entries of the maps of the head, of which `first` is the number."""
  if not key.startswith('head.') or args.get('head_depth', 1) == 1:
    yield (key.replace('head.', 'head.1.') if first else key), entry
    return
  shape = [args['embed_dim']] * len(entry['shape'])
  yield key.replace('head.', f'head.{first}.'), {**entry, 'shape': shape}
  yield key.replace('head.', f'head.{first + 2}.'), entry


def arrays(case: Case) -> dict[str, np.ndarray]:
  """The arrays of a case, from its inputs."""
  io, net = case.io, Twin(case)
  texts = np.split(np.float64(io['text']), np.cumsum(io['text_lens'])[:-1])
  captions = [net.caption(text) for text in texts]
  logits = net.logits(
    net.run(np.float64(io['x_BLC_wo_prefix']), captions), captions
  )
  found = {
    'logits': logits,
    'loss_per_token': _losses(logits, np.int64(io['labels']), net.values),
    'rope_grid': net.rotation,
  }
  if net.args['use_bit_label']:
    run = case.generation
    layers, cfg, tau = (
      run[key] for key in ('cfg_insertion_layer', 'cfg_list', 'tau_list')
    )
    found |= net.generate(captions, layers, cfg, tau)
  return found


def _losses(logits, labels, values):
  each = logits.reshape(*labels.shape, values)
  each = each - each.max(-1, keepdims=True)
  each = each - np.log(np.exp(each).sum(-1, keepdims=True))
  nats = -np.take_along_axis(each, labels[..., None], -1)
  return nats.reshape(*labels.shape[:2], -1).mean(-1)


class Twin:
  """The transformer of a state dict, in float64."""

  def __init__(self, case: Case):
    self.weights = {k: np.float64(v) for k, v in case.weights().items()}
    self.args = args = case.meta['constructor']
    self.heads = args['num_heads']
    self.grids = [(h, w) for _, h, w in args['scale_schedule']]
    self.scale = np.repeat(
      range(len(self.grids)), [h * w for h, w in self.grids]
    )
    bits = args['use_bit_label']
    self.values = 2 if bits else 2 ** args['vae_embed_dim']
    kind = args['rope2d_normalized_by_hw']
    tables = [self._rotation(*grid, kind) for grid in self.grids]
    self.rotation = np.concatenate(tables, 1)

  def _rotation(self, height, width, kind):
    """(2, height * width, pairs): cosines and sines."""
    last, quarter = self.grids[-1], self.args['embed_dim'] // self.heads // 4
    waves = 10000.0 ** (-np.arange(quarter) / quarter)
    longest = max(last)
    axes = []
    for n, end in zip((height, width), last):
      if kind == 1:
        far = int(128 / longest * end) - 1 if end < longest else 127
        at = np.arange(n) * far / max(n - 1, 1)
      else:
        at = np.rint(np.arange(n) * end / n) if kind else np.arange(n)
      low = np.int32(at)
      angles = [(low + i)[:, None] * waves for i in range(2)]
      tables = [np.stack([np.cos(a), np.sin(a)]) for a in angles]
      share = (at - low)[:, None]
      axes.append((1 - share) * tables[0] + share * tables[1])
    y = np.repeat(axes[0], width, 1)
    x = np.tile(axes[1], (1, height, 1))
    return np.concatenate([y, x], -1)

  def linear(self, x, key):
    return x @ self.weights[f'{key}.weight'].T + self.weights[f'{key}.bias']

  def norm(self, x, key=''):
    """Of layers, or by root mean squares; with an affine part of its own or none."""
    if not self.args['rms_norm']:
      x = x - x.mean(-1, keepdims=True)
    y = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6)
    if key:
      y = y * self.weights[f'{key}.weight'] + self.weights.get(f'{key}.bias', 0)
    return y

  def caption(self, text):
    """(n, c) -> the pooled vector (d,) and the memory (n, d)."""
    weights, pool = self.weights, 'text_proj_for_sos.ca'
    x = text / np.sqrt((text**2).mean(-1, keepdims=True) + 1e-6)
    x = x * weights['text_norm.weight']
    k, v = np.split(x @ weights[f'{pool}.mat_kv.weight'].T, 2, -1)
    query = weights[f'{pool}.mat_q'].reshape(1, 1, -1)
    heads = weights[f'{pool}.mat_q'].shape[1]
    v = v + weights[f'{pool}.v_bias']
    pooled = _attend(query, k[None], v[None], heads, None)
    y = _gelu(self.linear(x, 'text_proj_for_ca.0'))
    return types.SimpleNamespace(
      vector=self.linear(pooled[0, 0], f'{pool}.proj'),
      memory=self.linear(y, 'text_proj_for_ca.2'),
    )

  def null(self, captions):
    table = self.weights['cfg_uncond']
    return [self.caption(table[: len(c.memory)]) for c in captions]

  def run(self, given, captions, guided=(), cfg=None):
    """What the last layer gives for the slots (b, n, d).

    Args:
      given: (b, n - 1, bits).
      captions: b.
      guided: layers behind which both halves of the batch become the guided one.
      cfg: its scale at every scale of the pyramid.
    """
    vector = np.stack([c.vector for c in captions])
    x = vector[:, None] + self.weights['pos_start']
    if given.shape[1]:
      if self.args.get('nm0'):
        given = self.norm(given, 'norm0_ve')
      x = np.concatenate([x, self.linear(given, 'word_embed')], 1)
    level, chunks = self.scale[: x.shape[1]], self.args['block_chunks']
    every = self.args['depth'] // chunks
    first_only = self.args['add_lvl_embeding_only_first_block']
    shared = None
    if self.args['shared_aln']:
      shared = self.linear(_silu(vector), 'shared_ada_lin.1')
    for i in range(self.args['depth']):
      if i == 0 or not first_only and i % every == 0:
        x = x + self.weights['lvl_embed.weight'][level]
      block = f'block_chunks.{i // every}.module.{i % every}'
      x = self.block(x, block, shared, vector, captions, level)
      if i in guided:
        own = np.array(cfg)[level][:, None]
        cond, null = np.split(x, 2)
        both = np.tile(own * cond + (1 - own) * null, (2, 1, 1))
        x = np.where(own == 1, x, both)
    return x

  def block(self, x, key, shared, vector, captions, level):
    weights = {
      k.removeprefix(f'{key}.'): v
      for k, v in self.weights.items()
      if k.startswith(f'{key}.')
    }
    if shared is None:
      six = self.linear(_silu(vector), f'{key}.ada_lin.1')
    else:
      six = shared + weights['ada_gss'].reshape(-1)
    gate1, gate2, scale1, scale2, shift1, shift2 = np.split(six[:, None], 6, -1)
    y = self.norm(x) * (1 + scale1) + shift1
    q, k, v = np.split(y @ weights['sa.mat_qkv.weight'].T, 3, -1)
    q, v = q + weights['sa.q_bias'], v + weights['sa.v_bias']
    sees = level[:, None] >= level
    temperature = weights.get('sa.scale_mul_1H11')
    y = _attend(q, k, v, self.heads, sees, temperature, self.rotation)
    x = x + gate1 * self.linear(y, f'{key}.sa.proj')
    y = self.norm(x, f'{key}.ca_norm')
    q = self.linear(y, f'{key}.ca.mat_q')
    read = []
    for own, caption in zip(q, captions):
      kv = caption.memory @ weights['ca.mat_kv.weight'].T
      k, v = np.split(kv[None], 2, -1)
      read.append(
        _attend(own[None], k, v + weights['ca.v_bias'], self.heads, None)[0]
      )
    y = self.linear(np.stack(read), f'{key}.ca.proj')
    x = x + y * weights.get('ca_gamma', 1)
    y = self.norm(x) * (1 + scale2) + shift2
    if self.args.get('swiglu'):
      gate, up = (
        y @ weights[f'ffn.{name}.weight'].T for name in ('fcg', 'fc1')
      )
      y = _silu(gate) * up @ weights['ffn.fc2.weight'].T
    else:
      y = _gelu(self.linear(y, f'{key}.ffn.fc1'))
      y = self.linear(y, f'{key}.ffn.fc2')
    return x + gate2 * y

  def logits(self, x, captions):
    first = 0 if self.args['head_aln'] else 1
    if first:
      x = self.norm(x, 'head.0')
    else:
      vector = np.stack([c.vector for c in captions])
      two = self.linear(_silu(vector), 'head_nm.ada_lin.1')
      scale, shift = np.split(two[:, None], 2, -1)
      x = self.norm(x) * (1 + scale) + shift
    if self.args.get('head_depth', 1) > 1:
      x = _gelu(self.linear(x, f'head.{first}'))
      return self.linear(x, f'head.{first + 2}')
    return self.linear(x, 'head.1' if first else 'head')

  def generate(self, captions, layers, cfg, tau):
    """Bits of all scales by the larger logit, and the logits."""
    guided = [self.args['depth'] + n for n in layers if n < 0]
    both = [*captions, *self.null(captions)]
    d, last = self.args['vae_embed_dim'], self.grids[-1]
    total, given = np.zeros((2, *last, d)), np.zeros((2, 0, d))
    found = {'gen_logits': [], 'gen_bits': []}
    for s, (height, width) in enumerate(self.grids):
      x = self.run(np.tile(given, (2, 1, 1)), both, guided, cfg)
      logits = self.logits(x, both)[:, -height * width :] / tau[s]
      cond, null = np.split(logits, 2)
      if 0 in layers:
        cond = cfg[s] * cond + (1 - cfg[s]) * null
      found['gen_logits'].append(cond.reshape(2, -1, d, 2))
      bits = found['gen_logits'][-1].argmax(-1)
      found['gen_bits'].append(np.uint8(bits))
      codes = (2.0 * bits - 1).reshape(2, height, width, d) / np.sqrt(d)
      total = total + _bilinear(codes, last)
      if s + 1 < len(self.grids):
        small = _bilinear(total, self.grids[s + 1]).reshape(2, -1, d)
        given = np.concatenate([given, small], 1)
    found = {k: np.concatenate(v, 1) for k, v in found.items()}
    return {**found, 'gen_summed_codes': np.moveaxis(total, -1, 1)}


def _attend(q, k, v, heads, sees, log_scale=None, rotation=None):
  """(b, n, d), (b, m, d), (b, m, d) -> (b, n, d); cosines with `log_scale`."""
  q, k, v = (
    x.reshape(*x.shape[:2], heads, -1).swapaxes(1, 2) for x in (q, k, v)
  )
  if log_scale is None:
    q = q / np.sqrt(q.shape[-1])
  else:
    q, k = (x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (q, k))
    q = q * np.exp(np.minimum(log_scale, np.log(100)))
  if rotation is not None:
    q, k = _rotate(q, rotation), _rotate(k, rotation)
  logits = q @ k.swapaxes(-1, -2)
  if sees is not None:
    logits = np.where(sees, logits, -np.inf)
  p = np.exp(logits - logits.max(-1, keepdims=True))
  y = p / p.sum(-1, keepdims=True) @ v
  return y.swapaxes(1, 2).reshape(len(q), q.shape[2], -1)


def _rotate(x, table):
  cos, sin = table[:, : x.shape[2]]
  pairs = x[..., ::2], x[..., 1::2]
  turned = pairs[0] * cos - pairs[1] * sin, pairs[0] * sin + pairs[1] * cos
  return np.stack(turned, -1).reshape(x.shape)


def _silu(x):
  return x / (1 + np.exp(-x))


def _gelu(x):
  return x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def _bilinear(x, grid):
  """(b, h, w, c) -> (b, *grid, c) between centres of pixels, not antialiased."""
  for axis, size in enumerate(grid, 1):
    n = x.shape[axis]
    at = np.maximum((np.arange(size) + 0.5) * n / size - 0.5, 0)
    low = np.int32(at)
    high = np.minimum(low + 1, n - 1)
    share = (at - low).reshape(-1, *[1] * (3 - axis))
    x = (1 - share) * x.take(low, axis) + share * x.take(high, axis)
  return x
