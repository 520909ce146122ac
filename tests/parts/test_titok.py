"""TiTok's generator with a BERT, against torch's own layers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from arvision.configs import common
from arvision.configs.titok import parts
from arvision.importers import table
from arvision.importers.titok import Generator
from arvision.model import BoundModel
from arvision.tasks import assemble

LENGTH, VOCAB, CLASSES, WIDTH, HEADS, HIDDEN, DEPTH = 6, 20, 5, 32, 4, 48, 2


def model():
  config = common.new()
  parts.bert(
    config,
    grid=(1, LENGTH),
    vocab_size=VOCAB,
    classes=CLASSES,
    depth=DEPTH,
    width=WIDTH,
    heads=HEADS,
    hidden=HIDDEN,
    steps=4,
    temperature=1.0,
    guidance=common.block(type='process.guidance.Constant', scale=1.0),
  )
  return assemble.make_model(config)


def released(torch):
  """A file with the keys of BERT, its layers in torch, and their sum."""
  torch.manual_seed(0)
  layers = [
    torch.nn.TransformerEncoderLayer(
      WIDTH,
      HEADS,
      HIDDEN,
      dropout=0.0,
      activation='gelu',
      layer_norm_eps=1e-12,
      batch_first=True,
    ).eval()
    for _ in range(DEPTH)
  ]
  draw = lambda *shape: torch.randn(shape) * 0.3
  e = 'model.embeddings'
  weights = {
    f'{e}.word_embeddings.weight': draw(VOCAB + CLASSES + 2, WIDTH),
    f'{e}.position_embeddings.weight': draw(LENGTH + 1, WIDTH),
    f'{e}.token_type_embeddings.weight': draw(2, WIDTH),
    f'{e}.LayerNorm.weight': draw(WIDTH),
    f'{e}.LayerNorm.bias': draw(WIDTH),
    'model.lm_head.weight': draw(VOCAB, WIDTH),
    'model.lm_head.bias': draw(VOCAB),
  }
  for i, layer in enumerate(layers):
    for p in layer.parameters():
      torch.nn.init.normal_(p, std=0.3)
    key = f'model.encoder.layer.{i}'
    own = layer.state_dict()
    for end in ('weight', 'bias'):
      parts = own[f'self_attn.in_proj_{end}'].chunk(3)
      for name, part in zip(('query', 'key', 'value'), parts):
        weights[f'{key}.attention.self.{name}.{end}'] = part
      for theirs, name in (
        ('self_attn.out_proj', 'attention.output.dense'),
        ('norm1', 'attention.output.LayerNorm'),
        ('linear1', 'intermediate.dense'),
        ('linear2', 'output.dense'),
        ('norm2', 'output.LayerNorm'),
      ):
        weights[f'{key}.{name}.{end}'] = own[f'{theirs}.{end}']
  return layers, weights


@pytest.mark.slow
def test_bert_is_that_of_torch():
  import torch

  layers, weights = released(torch)
  rng = np.random.default_rng(0)
  ids = rng.integers(0, VOCAB, (3, LENGTH))
  mask = rng.random((3, LENGTH)) < 0.5
  label = np.array([0, 4, 2])
  null = np.array([False, False, True])
  with torch.no_grad():
    e = 'model.embeddings'
    own = np.where(null, CLASSES, label) + VOCAB + 1
    rows = np.concatenate([own[:, None], np.where(mask, VOCAB, ids)], 1)
    x = weights[f'{e}.word_embeddings.weight'][torch.as_tensor(rows)]
    x = x + weights[f'{e}.position_embeddings.weight']
    x = x + weights[f'{e}.token_type_embeddings.weight'][0]
    norm = weights[f'{e}.LayerNorm.weight'], weights[f'{e}.LayerNorm.bias']
    x = torch.nn.functional.layer_norm(x, (WIDTH,), *norm, 1e-12)
    for layer in layers:
      x = layer(x)
    wanted = x[:, 1:] @ weights['model.lm_head.weight'].T
    wanted = (wanted + weights['model.lm_head.bias']).numpy()

  ours = model()
  numbers = {key: w.detach().numpy() for key, w in weights.items()}
  params = table.to_params(Generator(), numbers, assemble.model_shapes(ours))
  bound = BoundModel(ours, {'params': params})

  @jax.jit
  def logits(params):
    step = ours.layout.runs[0].step(0)
    slots = bound.feed_slots(jnp.asarray(ids), step, mask)
    cond = bound.condition({'label': label}, null)
    z, _ = bound.read(slots, cond, None, ours.layout.readout)
    return bound.field(z, bound.query(slots, ours.layout.readout))

  with jax.default_matmul_precision('highest'):
    np.testing.assert_allclose(logits(params), wanted, atol=2e-5)
