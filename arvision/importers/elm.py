"""The released weights of ELM: its binary autoencoders and its transformers.

Source: Pepper-lll/LMforImageGeneration, bae/binaryae.py and llama/ar_model.py.
"""

import dataclasses
import re
from typing import Any

import numpy as np

from arvision.importers import autoencoder, llamagen
from arvision.importers.table import Grids, Row, Weights, dense

_LEVELS = 'levels'
_MIDDLE = ('mid_block_1', 'mid_attn_1', 'mid_block_2')
# Modules in the order in which they run.
_ORDER = {
  'enc': ('conv_in', _LEVELS, *_MIDDLE, 'norm_out', 'conv_out'),
  'dec': ('norm_in', 'conv_in', *_MIDDLE, _LEVELS, 'norm_out', 'conv_out'),
}
_HALVES = {'enc': 'encoder', 'dec': 'generator'}
# The official order of a modulation is shift, scale, gate, first of attention.
_CHUNKS = (2, 5, 1, 4, 0, 3)
_UNUSED = re.compile(r'\.conv_out\.|^generator\.logsigma\.')


@dataclasses.dataclass(frozen=True)
class _Vectors:
  """(bits, c), a vector for every bit -> a 1 x 1 convolution."""

  def shape(self, ours):
    return ours[2:]

  def inward(self, w, ours):
    return w.reshape(ours)

  def outward(self, p):
    return p[0, 0]


class Tokenizer:
  """Binary autoencoders.

  Their files have weights that no model uses, a shortcut in every residual
  block and a variance of pixels; an exported file has zeros there.
  """

  name = 'ELM tokenizer'
  wrapping = 'ae.'
  hints = (
    (r'^quantize\.', 'config.tokenizer.quantizer: channels'),
    (
      r'blocks\.',
      'config.tokenizer.encoder and decoder: ch, ch_mult, res_blocks, '
      'attention_levels, norm_first',
    ),
  )

  def rows(self, ours):
    numbers = {half: _numbers(half, ours) for half in _ORDER}

    def rename(name):
      if name == 'quant_conv':
        return 'quantize.proj.0'
      half, module, *rest = name.replace('nin_shortcut', 'conv_out').split('.')
      number = str(numbers[half][module])
      return '.'.join([_HALVES[half], 'blocks', number, *rest])

    vectors = 'post_quant_conv/kernel'
    rest = {path: shape for path, shape in ours.items() if path != vectors}
    return [
      *autoencoder.rows(rest, rename),
      Row(vectors, 'quantize.embed.weight', _Vectors()),
    ]

  def buffers(self, weights: Weights, grids: Grids) -> Weights:
    found: Weights = {}
    for key in weights:
      block = key.removesuffix('conv2.weight')
      if block == key or f'{block}conv_out.weight' in weights:
        continue
      width = weights[key].shape[0]
      found |= _zeros(f'{block}conv_out', (width, width, 1, 1))
    last = max(
      (
        k for k in weights if re.fullmatch(r'generator\.blocks\.\d+\.weight', k)
      ),
      key=lambda k: int(k.split('.')[2]),
    )
    channels, width = weights[last].shape[:2]
    found |= _zeros('generator.logsigma.0', (width, width, 3, 3))
    return found | _zeros('generator.logsigma.2', (channels, width, 1, 1))

  def derived(self, key: str) -> bool:
    return bool(_UNUSED.search(key))


def _zeros(key, shape):
  return {
    f'{key}.weight': np.zeros(shape, np.float32),
    f'{key}.bias': np.zeros(shape[0], np.float32),
  }


def _numbers(half, paths):
  """Module of a half -> its number in the official list."""
  names = {p.split('/')[1] for p in paths if p.startswith(f'{half}/')}
  order = _ORDER[half]

  def place(name):
    level = re.fullmatch(r'(?:down|up)_(\d+)_([a-z]+)(?:_(\d+))?', name)
    if level is None:
      return (order.index(name),)
    number, kind, i = level.groups()
    number = int(number) if half == 'enc' else -int(number)
    return order.index(_LEVELS), number, i is None, int(i or 0), kind == 'attn'

  return {name: i for i, name in enumerate(sorted(names, key=place))}


class Transformer:
  """Autoregressive transformers."""

  name = 'ELM transformer'
  wrapping = 'model'
  hints = (
    (r'^layers\.\d+\.feed_forward', 'config.backbone.block.mlp.hidden'),
    (r'^layers\.', 'config.backbone.depth, width and heads'),
    (r'^cls_embedding\.', 'config.condition.classes'),
    (
      r'^(tok_embedder|output|proj)\.',
      'config.head and config.backbone.input: parts, vocab_size',
    ),
  )

  def rows(self, ours):
    shape = ours.get('head/linear/kernel', ())
    parts = map(str, range(shape[1] if len(shape) > 2 else 0))
    # Tokens of one id have no axis of parts, and no number in their keys.
    more: dict[str, Any] = {'parts': tuple(parts)} if len(shape) > 2 else {}
    end = '.{part}' if more else ''
    table = [
      Row('condition/label/table', 'cls_embedding.embedding_table.weight'),
      Row('backbone/input/codes/table', f'tok_embedder{end}.weight', **more),
      *dense('backbone/input/join', 'proj', bias=False),
      *llamagen.blocks('backbone/stack'),
      *dense(
        'backbone/stack/layers/block/adaln/linear',
        'layers.{i}.adaLN_modulation.1',
        chunks=_CHUNKS,
      ),
      Row('backbone/norm/scale', 'norm.weight'),
      Row('backbone/norm/norm/scale', 'norm.weight'),
      *dense('backbone/norm/adaln', 'final_adaLN.1', chunks=(1, 0)),
      *(
        dataclasses.replace(row, **more)
        for row in dense('head/linear', f'output{end}', bias=False)
      ),
    ]
    return [row for row in table if row.path in ours]

  def buffers(self, weights: Weights, grids: Grids) -> Weights:
    return {}

  def derived(self, key: str) -> bool:
    return key in ('freqs_cis', 'causal_mask')
