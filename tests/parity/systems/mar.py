"""MAR: latents in random order, each by diffusion."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from arvision.build import build
from arvision.configs import common
from arvision.configs.mar import parts
from arvision.configs.mar.tokenizer import kl16
from arvision.importers import mar as table
from arvision.metrics import total
from arvision.model import BoundModel
from arvision.process import diffusion
from arvision.process.guidance import guide
from arvision.random import Replay
from arvision.structs import Query, Tokens
from arvision.tasks import assemble
from tests.parity.case import Case, Part, System, captured, imported, nchw, nhwc
from tests.parity.stated import Stated

INPUTS = {
  'latent',
  'label',
  'orders',
  'mask',
  'net_x',
  'net_t',
  'net_c',
  'loss_t',
  'loss_noise',
  'gen_noise',
  'gen_nocfg_noise',
}


def sizes_of(args: Stated) -> dict[str, Any]:
  """What the masked autoencoder of MAR states, for `parts.mar`."""
  args.ignore('label_drop_prob', 'grad_checkpointing')
  side = args['img_size'] // args['vae_stride'] // args.get('patch_size', 1)
  args.only(seq_len=side**2)
  first, second = (
    {
      'width': args[f'{half}_embed_dim'],
      'heads': args[f'{half}_num_heads'],
      'hidden': int(args.get('mlp_ratio', 4.0) * args[f'{half}_embed_dim']),
    }
    for half in ('encoder', 'decoder')
  )
  return {
    'grid': (side, side),
    'classes': args['class_num'],
    'depth': args['encoder_depth'],
    'second_depth': args['decoder_depth'],
    'second': second,
    'prefix': args['buffer_size'],
    'dropout': 0.0,
    'biases': (
      ('q', 'k', 'v', 'out') if args.get('qkv_bias', True) else ('out',)
    ),
    **first,
  }


def config_of(case: Case) -> ConfigDict:
  """Our config of the official constructor's arguments."""
  args = case.args
  patch, channels = args.get('patch_size', 1), args['vae_embed_dim']
  side = args['img_size'] // args['vae_stride']
  steps = str(args['num_sampling_steps'])
  if not steps.isdigit():
    raise args.refused('num_sampling_steps', 'not a number of equal steps')
  args.only(token_embed_dim=channels * patch**2)
  config = common.new()
  config.tokenizer = kl16(grid=(side, side), channels=channels, scale=1.0)
  if patch != 1:
    config.tokenizer.update(type='tokenizers.autoencoder.Patched', patch=patch)
  parts.mar(
    config,
    channels=channels * patch**2,
    head_width=args['diffloss_w'],
    head_depth=args['diffloss_d'],
    repeats=args['diffusion_batch_mul'],
    diffusion_steps=int(steps),
    **sizes_of(args),
  )
  set_masking(config, args)
  return config


def set_masking(config: ConfigDict, args: Stated) -> None:
  """What MAR and TokenBridge state about masks and norms."""
  config.feed.lowest = args.get('mask_ratio_min', 0.7)
  set_epsilon(config, args)


def set_epsilon(config: ConfigDict, args: Stated) -> None:
  """The epsilon of all norms but the first."""
  # That of the first norm is fixed in the official code.
  backbone, epsilon = config.backbone, args.get('norm_eps', 1e-6)
  backbone.block.norm.epsilon = backbone.last_norm.epsilon = epsilon


def set_sampler(config: ConfigDict, run: Stated) -> None:
  """The sampler of a recorded run."""
  schedules = {'linear': 'Linear', 'constant': 'Constant'}
  name = run.get('cfg_schedule', 'linear')
  if name not in schedules:
    raise run.refused('cfg_schedule', 'an unknown schedule')
  config.sampler.guidance = common.block(
    type=f'process.guidance.{schedules[name]}'
  )
  key = 'end' if name == 'linear' else 'scale'
  config.sampler.guidance[key] = float(run['cfg'])
  config.sampler.logits_filter.temperature = float(run.get('temperature', 1.0))
  config.sampler.steps = run['num_iter']


def built(case: Case):
  """Config and model."""
  config = config_of(case)
  return config, assemble.make_model(config)


def loaded(case: Case):
  """Config, model, and parameters through the importer."""
  config, model = built(case)
  shape = 1, model.layout.tokens, model.head.channels
  blank = Tokens(jnp.zeros(shape))
  shapes = assemble.model_shapes(model, tokens=blank)
  return config, model, imported(case, table.Transformer(), shapes)


def rows(latent: np.ndarray) -> np.ndarray:
  """(..., c, h, w) -> (..., h * w, c)."""
  x = nhwc(latent)
  return x.reshape(*x.shape[:-3], -1, x.shape[-1])


def codec_of(case: Case) -> Any:
  """The tokenizer, which cuts latents into tokens; its weights are not read."""
  return assemble.make_tokenizer(config_of(case)).bind({})


def tokens_of(case: Case, latent: np.ndarray) -> np.ndarray:
  """(b, c, h, w) -> (b, t, c)."""
  return np.asarray(codec_of(case).to_tokens(nhwc(latent)).values)


def latents(case: Case, values: Any) -> np.ndarray:
  """(b, t, c) -> (b, c, h, w)."""
  return nchw(codec_of(case).to_latent(Tokens(values)))


def draws(model, orders, hidden, times, noise) -> dict[str, np.ndarray]:
  """What the feed and the head draw in a step.

  Args:
    model: an `ARModel`.
    orders: (b, t).
    hidden: how many tokens are.
    times, noise: (repeats * b * t, ...) in the official order.
  """
  return {
    'order': orders,
    'share': share_of(model.feed, hidden, orders),
    'time': repeated(as_uniform(times), orders),
    'noise': repeated(noise, orders),
  }


def share_of(feed, hidden: int, orders: np.ndarray) -> np.ndarray:
  """(b,) the uniform number that makes so many masked tokens."""
  batch, tokens = orders.shape
  ndtr = jax.scipy.special.ndtr
  share = max((hidden - 0.5) / tokens, feed.lowest)
  at, low, high = (
    float(ndtr((x - feed.mean) / feed.std)) for x in (share, feed.lowest, 1)
  )
  return np.full(batch, (at - low) / (high - low), np.float32)


def as_uniform(times: np.ndarray) -> np.ndarray:
  """Uniform numbers that make these times."""
  return (times + np.float32(0.5)) / diffusion.TRAIN_STEPS


def repeated(x: np.ndarray, orders: np.ndarray) -> np.ndarray:
  """(repeats * b * t, ...) in the official order -> (b, repeats, t, ...)."""
  return np.moveaxis(x.reshape(-1, *orders.shape, *x.shape[1:]), 0, 1)


def transformer(case: Case) -> Iterator[tuple[str, Any]]:
  io = case.io
  config, model, params = loaded(case)
  batch, inputs = len(io['label']), {'label': io['label']}
  tokens = tokens_of(case, io['latent'])
  yield 'tokens', tokens
  yield 'unpatchified', latents(case, tokens)

  hidden = int(io['mask'][0].sum())
  arrays = draws(model, io['orders'], hidden, io['loss_t'], io['loss_noise'])
  drawn = Replay(arrays, size=batch)

  def run(f, *args):
    return jax.jit(lambda p: model.apply({'params': p}, *args, method=f))(
      params
    )

  def mask_of(model):
    slots, _ = model.feed.train(Tokens(tokens), model.layout, None, drawn)
    return slots.masked[:, model.layout.prefix :]

  yield 'mask', np.asarray(run(mask_of)).astype(np.float32)
  none, all_ = np.zeros(batch, bool), np.ones(batch, bool)

  def z_of(model, null):
    slots, _ = model.feed.train(Tokens(tokens), model.layout, None, drawn)
    return model.hidden(slots, inputs, null)[0]

  seen = captured(model, params, none, method=z_of)
  modules = seen['modules']['backbone']
  yield 'encoder_in_all', seen['embed']
  visible = io['encoder_out'].shape[1]  # behind them are rows that fill up
  yield 'encoder_after_block0', seen['blocks'][0][:, :visible]
  yield 'encoder_out', modules['norm_first']['__call__'][0][:, :visible]
  yield 'decoder_after_block0', seen['stack_second'][0]
  yield 'decoder_norm', modules['norm']['__call__'][0]
  z = run(z_of, none)
  yield 'z', z[:, :, 0]
  yield 'z_uncond', run(z_of, all_)[:, :, 0]
  if 'net_x' in io:
    yield from _head(case, run)

  def losses(model):
    slots, targets = model.feed.train(Tokens(tokens), model.layout, None, drawn)
    z, query = model.hidden(slots, inputs, none)
    terms = model.head.terms(z, targets.values, drawn, query)
    whole, _ = model.losses(Tokens(tokens), inputs, drawn, train=False)
    return terms, total(whole).compute()

  (mse, bits), loss = run(losses)
  theirs = lambda x: np.moveaxis(np.asarray(x), 1, 0).ravel()
  yield 'loss_mse', theirs(mse)
  yield 'loss_vb', theirs(bits)
  yield 'loss_terms', theirs(mse + bits)
  yield 'loss', loss

  count = config.head.counts.first
  spaced = diffusion.sample_table(count)
  yield 'gen_timestep_map', spaced.times
  yield 'gen_betas', spaced.betas
  yield 'gen_alphas_cumprod', spaced.alphas_bar
  yield 'train_betas_first_last', diffusion.cosine_betas()[[0, -1]]
  for name, run in case.runs.items():
    if f'{name}_noise' in io:
      yield from _generation(case, name, run)


def _head(case, run):
  """The diffusion head by itself: a row of these arrays is an example."""
  io = case.io
  z, x = io['net_c'][:, None, None], io['net_x'][:, None]
  times = io['net_t'][:, None]

  def embedded(model):
    return model.head.time(jnp.asarray(io['net_t']))

  yield 'time_embedding', run(embedded)

  def field(model, z, x, times):
    return model.head.field(z, Query(values=x, level=times))[:, 0]

  out = np.asarray(run(field, z, x, times))
  yield 'net_out', out.reshape(len(x), -1)
  if 'net_out_cfg' not in io:
    return
  # The conditions are rows of z; beside them are those of `z_uncond`.
  width = z.shape[-1]
  all_, none = (io[name].reshape(-1, width) for name in ('z', 'z_uncond'))
  mine = [np.abs(all_ - c).sum(1).argmin() for c in io['net_c']]
  null = np.asarray(run(field, none[mine][:, None, None], x, times))
  scale = _number(case.meta['produced_by']['net_out_cfg'])
  seen = guide(out[:, 0], null[:, 0], scale)
  halves = [np.concatenate([seen, v], -1) for v in (out[:, 1], null[:, 1])]
  yield 'net_out_cfg', np.concatenate(halves)


def _number(text):
  """The last argument of a call in words."""
  return float(text.rsplit(',', 1)[1].strip(' )'))


def _generation(case, name, run):
  """A replay of the recorded orders and noise."""
  io = case.io
  config, model, params = loaded(case)
  run.says('kind', 'replay')
  run.only(diffusion_steps=config.head.counts.first)
  set_sampler(config, run)
  sampler = build(config.sampler, 'sampler')
  batch, tokens = io['orders'].shape
  noise = io[f'{name}_noise']
  drawn = Replay({'order': io['orders'], 'noise': noise}, size=batch)

  @jax.jit
  def generate(params):
    bound = BoundModel(model, {'params': params}, codec_of(case))
    return sampler.run(bound, {'label': io['label']}, drawn, batch)

  values, known, mask = generate(params)
  left = np.array(sampler.counts(tokens)[1:])
  # The last step draws all that is left, and leaves none of it.
  yield f'{name}_mask_len', Part(left[:-1], np.s_[:-1])
  masks = np.moveaxis(np.asarray(mask[1:]), 0, 1)
  yield f'{name}_mask_next', Part(masks, np.s_[:, :-1])
  scales = [float(sampler.scale(n, tokens)) for n in left]
  yield f'{name}_cfg_iter', np.array(scales)
  after = np.asarray(known[1]), ~np.asarray(mask[1])
  yield f'{name}_first_iter_latents', after[0][after[1]]
  yield name, latents(case, values.values)


SYSTEMS = {
  'models.mar.MAR': System(transformer, INPUTS),
}
