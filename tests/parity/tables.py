"""Official keys -> parameter paths, for the generators that tests compare."""

import numpy as np


def _affine(w, key, shape=None):
  kernel, bias = w[f'{key}.weight'].T, w[f'{key}.bias']
  if shape:
    kernel, bias = kernel.reshape(-1, *shape), bias.reshape(shape)
  return {'kernel': kernel, 'bias': bias}


def var(w, depth, heads):
  """The tree of `configs.common.var` from an official VAR state dict."""
  width = w['class_emb.weight'].shape[1]
  head = (heads, width // heads)

  def layers(make):
    return np.stack([make(f'blocks.{i}') for i in range(depth)])

  def dense(key):
    return {
      'kernel': layers(lambda b: w[f'{b}.{key}.weight'].T),
      'bias': layers(lambda b: w[f'{b}.{key}.bias']),
    }

  out = dense('attn.proj')
  attention = {
    'qkv': {
      'kernel': layers(
        lambda b: w[f'{b}.attn.mat_qkv.weight'].T.reshape(width, 3, *head)
      )
    },
    'q_bias': layers(lambda b: w[f'{b}.attn.q_bias'].reshape(head)),
    'v_bias': layers(lambda b: w[f'{b}.attn.v_bias'].reshape(head)),
    'logits': {
      'log_scale': layers(lambda b: w[f'{b}.attn.scale_mul_1H11'].reshape(-1))
    },
    'out': {
      'kernel': out['kernel'].reshape(depth, *head, width),
      'bias': out['bias'],
    },
  }
  block = {
    'attention': attention,
    'mlp': {'fc1': dense('ffn.fc1'), 'fc2': dense('ffn.fc2')},
  }
  six = (6, width)
  backbone = {
    'input': {'linear': _affine(w, 'word_embed')},
    'position': {'slot': w['pos_1LC'][0], 'entity': w['lvl_embed.weight']},
    'norm_adaln': _affine(w, 'head_nm.ada_lin.1', (2, width)),
    'stack': {'layers': {'block': block}},
  }
  if 'shared_ada_lin.1.weight' in w:
    backbone['shared_adaln'] = _affine(w, 'shared_ada_lin.1', six)
    offset = layers(lambda b: w[f'{b}.ada_gss'].reshape(six))
    block['adaln'] = {'offset': offset}
  else:
    kernel = layers(lambda b: w[f'{b}.ada_lin.1.weight'].T.reshape(width, *six))
    bias = layers(lambda b: w[f'{b}.ada_lin.1.bias'].reshape(six))
    block['adaln'] = {'linear': {'kernel': kernel, 'bias': bias}}
  condition = {
    'label': {'table': w['class_emb.weight']},
    'start': w['pos_start'][0],
  }
  head_tree = {'linear': _affine(w, 'head')}
  return {'condition': condition, 'backbone': backbone, 'head': head_tree}


def llamagen(w, depth, heads):
  """The tree of `configs.common.llamagen` from an official state dict."""
  width = w['tok_embeddings.weight'].shape[1]
  head = (heads, width // heads)

  def layers(key, shape=None):
    rows = [w[f'layers.{i}.{key}.weight'].T for i in range(depth)]
    return np.stack([r.reshape(shape) if shape else r for r in rows])

  block = {
    'attention': {
      'qkv': {'kernel': layers('attention.wqkv', (width, 3, *head))},
      'out': {'kernel': layers('attention.wo', (*head, width))},
    },
    'mlp': {
      n: {'kernel': layers(f'feed_forward.{n}')} for n in ('w1', 'w2', 'w3')
    },
    'norm1': {'scale': layers('attention_norm')},
    'norm2': {'scale': layers('ffn_norm')},
  }
  table = w['cls_embedding.embedding_table.weight']
  return {
    'condition': {'label': {'table': table}},
    'backbone': {
      'input': {'codes': {'table': w['tok_embeddings.weight']}},
      'norm': {'scale': w['norm.weight']},
      'stack': {'layers': {'block': block}},
    },
    'head': {'linear': {'kernel': w['output.weight'].T}},
  }
