"""TiTok with latents instead of codes, of which nothing was recorded."""

import json
import shutil

import numpy as np

from tests.parity import check
from tests.parity.case import CASES, Case
from tests.parity.systems import titok


def test_a_sample_of_the_posterior_is_decoded(tmp_path):
  folder = tmp_path / 'case'
  shutil.copytree(CASES / 'titok_nonlegacy', folder)
  meta = json.loads((folder / 'meta.json').read_text())
  meta['constructor']['quantize_mode'] = 'vae'
  del meta['constructor']['codebook_size'], meta['constructor']['use_l2_norm']
  weights = meta['weights']
  del weights['quantize.embedding.weight']
  for end in ('weight', 'bias'):
    weights[f'encoder.conv_out.{end}']['shape'][0] *= 2
  (folder / 'meta.json').write_text(json.dumps(meta))
  old = Case(folder).io
  rng = np.random.default_rng(0)
  io = {k: old[k] for k in ('image', 'patch_embed', 'enc_ln_post')}
  io['noise'] = np.float32(rng.normal(size=(2, 8, 1, 6)))
  # Its last layer is a linear map of what is recorded before it.
  drawn = Case(folder).weights()
  kernel = drawn['encoder.conv_out.weight'][:, :, 0, 0]
  z = io['enc_ln_post'] @ kernel.T + drawn['encoder.conv_out.bias']
  io['z'] = np.float32(np.moveaxis(z, -1, 1)[:, :, None])
  mean, log = np.split(io['z'], 2, axis=1)
  log = np.clip(log, -30, 20)
  io['quant'] = mean + np.exp(log / 2) * io['noise']
  io['kl'] = (mean**2 + np.exp(log) - 1 - log).sum((1, 2)) / 2
  io['rand_z'] = io['quant']
  np.savez(folder / 'io.npz', **io)
  case = Case(folder)
  found = dict(titok.tokenizer(case))
  assert not case.args.unread
  for name in ('z', 'quant', 'kl', 'enc_ln_post'):
    assert check.compare(name, found[name], io[name], 2e-5).verdict == 'ok'
  np.testing.assert_allclose(found['recon'], found['rand_image'], atol=2e-5)
