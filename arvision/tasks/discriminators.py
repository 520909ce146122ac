"""What a discriminator adds to the training of a tokenizer."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from arvision.metrics import Mean, Term
from arvision.tasks.base import Objective, TrainState
from arvision.tokenizers import adversarial
from arvision.tokenizers.dino import SPECTRAL, unit

_LOGITS = 'mean_logits'


def extra(adversary: adversarial.Adversary | None) -> dict[str, jax.Array]:
  """Its part of the initial `TrainState.extra`."""
  if adversary is None or not adversary.lecam:
    return {}
  return {_LOGITS: jnp.zeros(2, jnp.float32)}


def judged(
  adversary: adversarial.Adversary,
  found: Objective,
  params: Any,
  state: TrainState,
  image: jax.Array,
  other: jax.Array,
  paid: jax.Array,
  last_layer: Callable[[jax.Array], jax.Array],
  view: Callable[[jax.Array], Any] = lambda image: image,
) -> Objective:
  """The objective with the discriminator's opinion and its own losses.

  Args:
    adversary: the discriminator and its weights.
    found: the objective without them.
    params: of the discriminator.
    state: before the step.
    image: (b, H, W, C).
    other: its reconstruction.
    paid: gradient of the reconstruction loss at the last layer.
    last_layer: gradient at the image -> gradient at the last layer.
    view: image -> what the discriminator takes.
  """
  net = adversary.net()
  on = (state.step >= adversary.start).astype(jnp.float32)

  def opinion(x):
    judge = {'params': jax.lax.stop_gradient(params)}
    each = adversarial.generator(net.apply(judge, view(x)))
    return jnp.sum(each), each

  _, to_image, fake = jax.vjp(opinion, other, has_aux=True)
  weight = on * adversary.weight
  if adversary.limits is not None:
    gradient = last_layer(to_image(jnp.float32(1))[0])
    weight *= adversarial.balance(paid, gradient, adversary.limits)
  real, vectors = net.apply({'params': params}, view(image), mutable=[SPECTRAL])
  logits = real, net.apply({'params': params}, view(adversary.fake(other)))
  apart = {'discriminator': Term(on * adversarial.hinge(*logits))}
  aux = {**found.aux, **vectors}
  if adversary.lecam:
    means = jnp.stack([jnp.mean(x) for x in logits])
    loss = adversarial.lecam(means, state.extra[_LOGITS])
    apart['lecam'] = Term(loss, scale=on * adversary.lecam)
    aux[_LOGITS] = on * means
  return Objective(
    {**found.terms, 'generator': Term(fake, scale=weight)},
    apart,
    {**found.metrics, 'adversarial_weight': Mean.of(weight)},
    aux,
  )


def after(
  adversary: adversarial.Adversary | None,
  state: TrainState,
  aux: dict[str, Any],
  pieces: int,
) -> TrainState:
  """The state with the running averages of a step.

  Args:
    adversary: the discriminator.
    state: after the step.
    aux: of the step, summed.
    pieces: how many microbatches they are summed over.
  """
  if adversary is None:
    return state
  if SPECTRAL in aux:
    # All microbatches have the same vectors, which are of length 1.
    vectors = jax.tree.map(unit, aux[SPECTRAL])
    net = overlaid(state.params['discriminator'], vectors)
    state = state.replace(params={**state.params, 'discriminator': net})
  if _LOGITS not in aux:
    return state
  old = state.extra[_LOGITS]
  decay = adversary.lecam_decay
  new = decay * old + (1 - decay) * aux[_LOGITS] / pieces
  # The step is counted already.
  new = jnp.where(state.step > adversary.start, new, old)
  return state.replace(extra={**state.extra, _LOGITS: new})


def overlaid(tree: Any, other: Any) -> Any:
  """Nested dicts with the leaves of another one in place of their own."""
  if not isinstance(other, Mapping):
    return other
  return {**tree, **{k: overlaid(tree[k], v) for k, v in other.items()}}
