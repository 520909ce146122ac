"""Absorbing diffusion: samplers of BD3-LM; loss, likelihoods, samplers of SMDM."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from arvision.feeds.mask import Absorbing
from arvision.process.absorbing import (
  antithetic,
  bound,
  chain_rule,
  hitting_time,
)
from arvision.process.guidance import Constant, guide
from arvision.process.logits import LogitsFilter, Precise, PreciseWithin
from arvision.process.masking import LikelyFirst
from arvision.random import Replay
from arvision.samplers.absorbing import (
  Ancestral,
  AncestralAtOnce,
  AncestralSureFirst,
  FirstHitting,
  network_calls,
)
from arvision.samplers.base import Known, Network
from arvision.samplers.masked import Masked
from arvision.structs import Tokens
from tests.parity.case import Case, System
from tests.parity.stated import NotCompared, Stated
from tests.table_model import TableModel


def toy(case: Case, size: int, ids: int) -> Any:
  """Values (b, t), -1 where masked -> logits (b, t, ids) of the toy network.

  Args:
    case: has the tables.
    size: row of the mask in the tables.
    ids: of the logits.
  """
  io = case.io
  position, left, right = (
    jnp.asarray(io[f'toy_{k}'][..., :ids])
    for k in ('position', 'left', 'right')
  )

  @jax.jit
  def logits(values):
    values = jnp.where(values < 0, size, values)
    beside = jnp.pad(values, ((0, 0), (1, 1)), constant_values=size)
    found = position[: values.shape[1]] + left[beside[:, :-2]]
    found = found + right[beside[:, 2:]]
    if 'toy_mean' in io:
      found += jnp.asarray(io['toy_mean'])[values].mean(1, keepdims=True)
    return found

  return logits


# BD3-LM


def bd3lm(case: Case) -> Iterator[tuple[str, Any]]:
  for i, run in enumerate(case.meta['sizes']['runs']):
    yield from _blocks(case, i, Stated(f'sizes.runs.{i}', run))


def _blocks(case, number, run):
  sizes = Stated('sizes', case.meta['sizes'])
  size, block, blocks = (int(sizes[k]) for k in ('V', 'block', 'blocks'))
  draws = {
    k: case.io[f'{k}_uniform_{number}'] for k in ('cat', 'index', 'time')
  }
  options = {'logits_filter': PreciseWithin(top_p=float(run['nucleus_p']))}
  hits, steps = bool(run['first_hitting']), int(run['steps'])
  sampler = FirstHitting(**options)
  if not hits:
    sampler = AncestralAtOnce(steps=steps, **options)
  if run.unread:
    raise NotCompared(f'{", ".join(run.unread)}: not read by the driver')
  logits = toy(case, size - 1, size - 1)
  state = np.zeros((1, block * blocks), np.int32)
  used, calls, found = 0, 0, []
  for k in range(blocks):
    own = {name: x[used:] for name, x in draws.items()}
    window, here = (k + 1) * block, np.arange(k * block, (k + 1) * block)
    model = TableModel(logits, window)
    step = model.layout.runs[0].step(0)
    step = step._replace(tokens=here, readout=here[:, None])
    keep = np.zeros((1, window), bool)
    keep[0, 0] = k == 0
    known = Known(np.full((1, window), int(sizes['bos'])), keep)
    count = sampler.passes(block)
    start = np.where(keep[0, here], 0, -1)
    draw = Replay(_noise(own, start, count, hits, size))
    network = Network(sampler, model, {}, 1)

    @jax.jit
    def fill(state, network=network, step=step, draw=draw, known=known):
      state, _, (given, _) = sampler.within(
        network, state, None, step, draw, known, None
      )
      return state, given

    after, given = fill(state[:, :window])
    state[:, :window] = after
    real = int((np.asarray(given) < 0).any((1, 2)).sum())
    calls += int(network_calls(given))
    states = np.concatenate([given, after[None, :, here]])[:, 0]
    new = [
      i for i in range(real) if not i or (states[i] != states[i - 1]).any()
    ]
    past = np.repeat(state[:, : k * block], len(states), 0)
    log_p = logits(np.concatenate([past, states], 1))[np.array(new)][:, here]
    log_p = jax.nn.log_softmax(log_p)
    masked = (states[:real] < 0).sum(1)
    times = np.linspace(1, 0, steps)[:real]
    if hits:
      times, time = [], 1.0
      for m, u in zip(masked, own['time']):
        times.append(time := hitting_time(time, m, np.float32(u)))
    shown = np.where(states < 0, size - 1, states)[1 : real + 1]
    found.append((times, masked, shown, log_p))
    used += real
  names = ('time', 'num_masked', 'block_after_step', 'log_p')
  for name, arrays in zip(names, zip(*found)):
    yield f'{name}_{number}', np.concatenate(arrays)
  yield f'tokens_{number}', state
  yield f'network_calls_{number}', np.array(calls)
  yield f'uniforms_used_{number}', np.array([used * hits, used * hits, used])


def _noise(draws, start, count, hits, size):
  """The recorded draws of a block under our names."""
  uniform = np.full((count, *draws['cat'].shape[1:]), 0.5)
  some = draws['cat'][:count]
  uniform[: len(some)] = some
  noise = 1e-10 - np.log(uniform + 1e-10)
  if not hits:
    return {'choice': np.float32(noise)[:, None]}
  index = np.append(draws['index'][:count], np.zeros(count))[:count]
  masked, rows = start < 0, []
  for i in range(count):
    at = np.flatnonzero(masked)
    at = at[int(index[i] * len(at))] if len(at) else 0
    masked[at] = False
    rows.append(noise[i, at, : size - 1])
  choice = np.float32(rows)[:, None, None]
  return {'token': np.float32(index)[:, None], 'choice': choice}


# SMDM


def smdm(case: Case) -> Iterator[tuple[str, Any]]:
  sizes = Stated('sizes', case.meta['sizes'])
  sizes.ignore('seed', 'B', 'mc_num')
  io, size, length = case.io, int(sizes['V']), int(sizes['L'])
  logits = toy(case, size, size)
  tokens = jnp.asarray(io['tokens'])
  yield from _losses(case, sizes, logits, size)
  prompt = np.arange(length) < int(sizes['prompt'])
  noisy = jnp.asarray(io['train_noisy'])
  noisy = jnp.where(noisy == size, -1, noisy)
  batch = int(sizes['mc_batch'])
  for name, scale in (('cfg', 1 + float(sizes['cfg'])), ('nocfg', 1.0)):

    def guided(values, scale=scale):
      null = logits(jnp.where(prompt, -1, values))
      return guide(logits(values), null, scale)

    yield f'guided_logits_{name}', guided(noisy)

    @jax.jit
    def nats(masked, guided=guided):
      log_p = jax.nn.log_softmax(guided(jnp.where(masked, -1, tokens[:1])))
      target = jnp.broadcast_to(tokens[:1], masked.shape)
      return -jnp.take_along_axis(log_p, target[..., None], -1)[..., 0]

    rounds = zip(io['mc_time_uniform'], io['mc_mask_uniform'])
    each = [
      bound(nats, antithetic(u, np.arange(batch), batch), mask, ~prompt)
      for u, mask in rounds
    ]
    yield f'mc_nll_{name}', np.mean(each)
    chain = chain_rule(nats, np.flatnonzero(~prompt), length)
    yield f'chain_nll_{name}', np.asarray(chain)[0]
    yield from _samples(case, sizes, logits, name, scale, prompt)
  if sizes.unread:
    raise NotCompared(f'{", ".join(sizes.unread)}: not read by the driver')


def _losses(case, sizes, logits, size):
  io = case.io
  tokens = jnp.asarray(io['tokens'])
  feed = Absorbing(lowest=float(sizes['eps']))
  layout = TableModel(logits, tokens.shape[1]).layout
  arrays = {k: io[f'train_{k}_uniform'] for k in ('time', 'mask')}
  draw = Replay(arrays, size=len(tokens))
  slots, targets = feed.train(Tokens(tokens), layout, None, draw)
  masked, weight = slots.masked, targets.weight

  def loss(logits, weight, denominator):
    nats = optax.softmax_cross_entropy_with_integer_labels(logits, tokens)
    return jnp.sum(nats * weight) / jnp.sum(denominator)

  yield 'train_noisy', np.where(masked, size, tokens)
  yield 'train_p_mask', slots.level[:, 0]
  found = logits(jnp.where(masked, -1, tokens))
  yield 'train_logits', found
  whole = targets.denominator
  value, gradient = jax.value_and_grad(loss)(found, weight, whole)
  yield 'train_loss', value
  yield 'train_grad_logits', gradient
  answer = np.arange(tokens.shape[1]) >= io['prompt_length'][:, None]
  for drop in (0, 1):
    hidden = (masked & answer) | (~answer & bool(drop))
    found = logits(jnp.where(hidden, -1, tokens))
    yield f'sft_input_drop{drop}', np.where(hidden, size, tokens)
    yield f'sft_loss_drop{drop}', loss(found, weight * answer, whole * answer)


def _samples(case, sizes, logits, name, scale, prompt):
  io, size, length = case.io, int(sizes['V']), len(prompt)
  temperature, steps = float(sizes['temperature']), int(sizes['steps'])
  known = Known(io['tokens'][:1], prompt[None])
  model = TableModel(logits, length, prompt)
  guidance = Constant(scale)

  def run(sampler, draw):
    loop = jax.jit(lambda: sampler.loop(model, {}, draw, 1, known))
    tokens, [(given, _)] = loop()
    return tokens.values, np.where(given < 0, size, given)[:, 0]

  greedy = Masked(
    steps=int((~prompt).sum()),
    schedule='square',  # one token at a time
    policy=LikelyFirst(0.0),
    guidance=guidance,
    logits_filter=LogitsFilter(temperature=0.0),
  )
  found, _ = run(greedy, Replay({'none': np.zeros((greedy.steps, 1))}))
  yield (
    f'greedy_match_{name}',
    np.array(int((found == io['tokens'][:1]).all())),
  )
  for number, (kind, type_) in enumerate(
    (('origin', Ancestral), ('greddy', AncestralSureFirst))
  ):
    sampler = type_(
      steps=steps, guidance=guidance, logits_filter=Precise(temperature)
    )
    row = 2 * number + (name == 'nocfg')
    states = io[f'states_{kind}_{name}']
    after = np.concatenate([states[1:], io[f'sample_{kind}_{name}']])
    unmask = np.full((steps, 1, length), 0.5, np.float32)
    choice = np.ones((steps, 1, length, size), np.float32)
    for k, (now, then) in enumerate(zip(states, after)):
      masked = np.flatnonzero(now == size)
      drawn = masked if number else masked[then[masked] != size]
      uniform = io['transfer_uniform'][row, k, : len(masked)]
      unmask[k, 0, masked] = uniform
      gumbel = io['gumbel_uniform'][row, k, : len(drawn)]
      choice[k, 0, drawn] = -np.log(gumbel)
    found, given = run(sampler, Replay({'unmask': unmask, 'choice': choice}))
    yield f'sample_{kind}_{name}', found
    yield f'states_{kind}_{name}', given


_TOY = {f'toy_{k}' for k in ('position', 'left', 'right', 'mean')}
_DRAWS = {
  f'{k}_uniform_{i}' for k in ('cat', 'index', 'time') for i in range(9)
}
_UNIFORM = {
  f'{k}_uniform'
  for k in (
    'train_time',
    'train_mask',
    'mc_time',
    'mc_mask',
    'transfer',
    'gumbel',
  )
}
FUNCTIONS = {
  'diffusion.py': System(bd3lm, _TOY | _DRAWS),
  'pretrain/train_mdm.py': System(
    smdm, _TOY | _UNIFORM | {'tokens', 'prompt_length'}
  ),
}
