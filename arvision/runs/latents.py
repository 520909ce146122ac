"""Mean and standard deviation of the latents of a continuous tokenizer."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from arvision.errors import ConfigError
from arvision.random import Draw
from arvision.runs.measure import images_of


def measure(
  run: Any, images: int = 0, batch_size: int = 64, seed: int = 0
) -> dict[str, Any]:
  """Mean and standard deviation of latents, as they enter the decoder.

  Samples one latent per training image from its posterior, as training does.

  Args:
    run: run of the tokenizer.
    images: number of training images; 0 for all.
    batch_size: images per call.
    seed: seed of the samples.

  Returns:
    'step', 'ema', 'images', 'mean', 'std', and lists 'channel_mean' and
    'channel_std' with a value per channel.

  Raises:
    ConfigError: the run is a generator or has discrete tokens, an argument is
      out of range, or the latents have no variance.
  """
  _check(run, images, batch_size)
  data, _ = images_of(run)

  @jax.jit
  def latents(variables, image, index):
    codec = run.tokenizer.bind(variables)
    moments = codec.encode_moments(image)
    return codec.quant.latent(moments, Draw.create(seed, index))

  count, total, squares = 0, 0.0, 0.0
  left = images or data.examples
  for batch in data.train_pass(batch_size, views='center'):
    index = jnp.asarray(batch['index'])
    latent = latents(run.variables, batch['image'][:, 0], index)
    kept = np.flatnonzero(batch['weight'] > 0)[:left]
    rows = np.asarray(latent, np.float64)[kept].reshape(-1, latent.shape[-1])
    total, squares = total + rows.sum(0), squares + (rows**2).sum(0)
    count, left = count + len(kept), left - len(kept)
    if not left:
      break
  places = count * np.prod(latent.shape[1:3])
  mean, square = np.float64(total / places), squares / places
  found = {
    'step': int(run.step),
    'ema': run.ema,
    'images': count,
    'mean': float(mean.mean()),
    'std': float(np.sqrt(square.mean() - mean.mean() ** 2)),
    'channel_mean': mean.tolist(),
    'channel_std': np.sqrt(square - mean**2).tolist(),
  }
  if not found['std'] > 0:
    raise ConfigError(f'the latents have no variance: {found}')
  return found


def _check(run, images, batch_size):
  if images < 0 or batch_size < 1:
    raise ConfigError(
      f'--images={images} --batch_size={batch_size}: wanted 0 or more images, '
      'and 1 or more per call'
    )
  if run.model is not None:
    raise ConfigError(
      '--workdir holds a generator; name the workdir of its tokenizer, '
      'config.frozen.tokenizer='
      f"'{run.config.get('frozen', {}).get('tokenizer', '')}'"
    )
  if run.tokenizer.spec.size:
    raise ConfigError(
      f'config.tokenizer ({run.config.tokenizer.type}) has discrete tokens; '
      "wanted config.tokenizer.quantizer.type='quantizers.kl.KL'"
    )


def setting(found: dict[str, Any], shift: bool = False) -> dict[str, Any]:
  """Fields of the quantiser for latents of standard deviation 1.

  Args:
    found: result of `measure`.
    shift: whether the mean of every channel is subtracted first.

  Returns:
    'scale', and with `shift` the list 'shift' with a value per channel.
  """
  if not shift:
    return {'scale': 1 / found['std']}
  within = np.sqrt(np.mean(np.square(found['channel_std'])))
  return {'scale': float(1 / within), 'shift': found['channel_mean']}
