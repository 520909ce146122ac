"""Figures of pytorch-fid, torch-fidelity and EfficientNet-Lite-PyTorch.

On the same weights and images. Slow, and needs the extra `evals-test`.
"""

import importlib.util
import sys

import jax
import numpy as np
import pytest
import sklearn.datasets

from arvision.evals import inception_score, kernel_distance
from arvision.evals.efficientnet import EfficientNetLite0
from arvision.evals.frechet import Moments, frechet_distance
from arvision.evals.inception import Inception
from benchmarks import features as speed
from tests.multidevice import processes

pytestmark = pytest.mark.slow

COUNT = 1000


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
  path = tmp_path_factory.mktemp('weights') / 'w.pth'
  speed.random_weights(path)
  return path


@pytest.fixture(scope='module')
def sets():
  """Two sets of `COUNT` images of 32 px with different colours."""
  rng = np.random.default_rng(0)
  fields = rng.normal(size=(2 * COUNT, 8, 8, 3))
  fields = fields.repeat(4, 1).repeat(4, 2) + rng.normal(size=(32, 32, 3)) / 2
  fields[COUNT:] = 0.7 * fields[COUNT:] + (0.3, 0, -0.2)
  images = np.uint8(np.clip(128 + 50 * fields, 0, 255))
  return images[:COUNT], images[COUNT:]


@pytest.fixture(scope='module')
def torch():
  torch = pytest.importorskip('torch')
  if importlib.util.find_spec('torch_fidelity') is None:
    pytest.skip("needs pip install -e '.[evals-test]'")
  speed.import_torchvision()
  return torch


def nchw(torch, images):
  return torch.from_numpy(np.moveaxis(images, -1, 1).copy())


def frechet(features):
  return frechet_distance(*(Moments.of(f.pool) for f in features))


def test_figures_are_those_of_torch_fidelity(weights, sets, torch):
  ours = [Inception(str(weights), 'torch-fidelity')(x) for x in sets]
  network = speed.their_network(weights)
  from torch_fidelity import metric_fid, metric_isc, metric_kid

  theirs = []
  with torch.inference_mode():
    for images in sets:
      parts = [network(part) for part in nchw(torch, images).split(50)]
      theirs.append([torch.cat(x) for x in zip(*parts)])
  for mine, (pool, logits) in zip(ours, theirs):
    np.testing.assert_allclose(mine.pool, pool, atol=1e-5 * pool.max().item())
    np.testing.assert_allclose(
      mine.logits, logits, atol=1e-5 * logits.abs().max().item()
    )
  statistics = [metric_fid.fid_features_to_statistics(t[0]) for t in theirs]
  wanted = metric_fid.fid_statistics_to_metric(*statistics, verbose=False)
  fid = frechet(ours)
  assert fid > 0.1
  assert fid == pytest.approx(wanted['frechet_inception_distance'], rel=1e-4)

  wanted = metric_kid.kid_features_to_metric(
    *(t[0] for t in theirs), kid_subset_size=COUNT // 2, verbose=False
  )
  kid = kernel_distance.kernel_distance(
    *(f.pool for f in ours), size=COUNT // 2
  )
  assert kid == pytest.approx(
    (
      wanted['kernel_inception_distance_mean'],
      wanted['kernel_inception_distance_std'],
    ),
    rel=1e-4,
  )
  for mine, (_, logits) in zip(ours, theirs):
    # Logits of random weights hardly differ from image to image.
    common = logits.mean(0)
    wanted = metric_isc.isc_features_to_metric(20 * (logits - common))
    score = inception_score.split_score(20 * (mine.logits - common.numpy()))
    assert score[0] > 1.1
    assert score == pytest.approx(
      (wanted['inception_score_mean'], wanted['inception_score_std']), rel=1e-4
    )


def test_figures_are_those_of_pytorch_fid(weights, sets, torch, monkeypatch):
  theirs = pytest.importorskip('pytorch_fid.inception')
  from pytorch_fid import fid_score

  monkeypatch.setattr(
    theirs, 'load_state_dict_from_url', lambda *_, **__: torch.load(weights)
  )
  network = theirs.InceptionV3([3]).eval()
  ours = [Inception(str(weights), 'pytorch-fid')(x) for x in sets]
  found = []
  with torch.inference_mode():
    for images in sets:
      parts = (nchw(torch, images).float() / 255).split(50)
      pools = [network(part)[0][:, :, 0, 0] for part in parts]
      found.append(torch.cat(pools).double().numpy())
  for mine, pool in zip(ours, found):
    np.testing.assert_allclose(mine.pool, pool, atol=1e-5 * pool.max())
  moments = [x for f in found for x in (f.mean(0), np.cov(f, rowvar=False))]
  wanted = fid_score.calculate_frechet_distance(*moments)
  assert frechet(ours) == pytest.approx(wanted, rel=1e-4)


_PROGRAM = """
import sys
import jax, numpy as np
from arvision.evals.inception import Inception
x = np.random.default_rng(0).integers(0, 256, (31, 40, 50, 3), np.uint8)
x[16:] //= 2
found = Inception(sys.argv[1], batch=2)(x)
np.savez(sys.argv[2], devices=jax.device_count(), **vars(found))
"""


def figures(found):
  """FID, sFID, IS and both parts of KID of two sets of features."""
  halves = lambda key: (found[key][:16], found[key][16:])
  return np.array(
    [
      *(
        frechet_distance(*map(Moments.of, halves(key)))
        for key in ('pool', 'spatial')
      ),
      inception_score.inception_score(20 * found['logits']),
      *kernel_distance.kernel_distance(*halves('pool'), size=8),
    ]
  )


def test_devices_do_not_change_the_figures(weights, tmp_path):
  """Features only differ as sums of float32 do that are cut up elsewhere."""
  found = {}
  for count in (1, 2, 8):
    path = str(tmp_path / f'{count}.npz')
    program = [sys.executable, '-c', _PROGRAM, str(weights), path]
    processes.run(program, 1, count)
    found[count] = dict(np.load(path))
    assert found[count].pop('devices') == count
  wanted = figures(found[1])
  for count in (2, 8):
    for key, features in found[1].items():
      error = np.abs(found[count][key] - features).max()
      assert error <= 1e-5 * np.abs(features).max()
    np.testing.assert_allclose(figures(found[count]), wanted, rtol=1e-6)


def test_efficientnet_is_the_official_one(torch):
  theirs = pytest.importorskip('efficientnet_lite_pytorch')
  ours = EfficientNetLite0(batch=4)
  network = theirs.EfficientNet.from_pretrained(
    'efficientnet-lite0', weights_path=ours.file()
  ).eval()
  images = np.random.default_rng(0).integers(0, 256, (4, 70, 90, 3), np.uint8)
  x = np.asarray(ours.prepare(images))
  with torch.inference_mode():
    maps = network.extract_features(
      torch.from_numpy(np.moveaxis(x, -1, 1).copy())
    )
    pool = maps.mean((2, 3))
    logits = network._fc(pool)
  found = ours(images)
  for mine, wanted in ((found.pool, pool), (found.logits, logits)):
    wanted = wanted.numpy()
    np.testing.assert_allclose(mine, wanted, atol=2e-5 * np.abs(wanted).max())
  assert jax.device_count() == 1


def test_efficientnet_recognises_photographs():
  network = EfficientNetLite0(batch=1)
  if network.missing:
    pytest.skip(network.missing)
  pictures = sklearn.datasets.load_sample_images().images
  best = [
    np.argsort(-network(picture[None]).logits[0])[:5] for picture in pictures
  ]
  assert 698 in best[0]  # a palace
  assert best[1][0] == 985  # a daisy
