"""Work memory per chip of a train step, with each kernel, without a TPU.

    pip install libtpu
    python benchmarks/attention_memory.py --topology=v5p:2x2x1 --batch=64

VAR-d16 at 512 px (2,240 slots) over stored tokens, parameters and optimizer
spread over all chips. The compiler of the TPU compiles the step for chips that
need not be here and says what it needs; nothing runs.
"""

import argparse
import json
import os
import types

os.environ.setdefault('JAX_PLATFORMS', 'cpu')
os.environ.setdefault('TPU_SKIP_MDS_QUERY', '1')
os.environ.setdefault('TPU_ACCELERATOR_TYPE', 'v5p-8')
os.environ.setdefault('TPU_WORKER_HOSTNAMES', 'localhost')

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.experimental import topologies

from arvision.build import build
from arvision.configs.var import imagenet256, tokenizer
from arvision.parallel.host import Placement
from arvision.parallel.mesh import make_mesh
from arvision.tasks import assemble
from arvision.training import start
from arvision.training.schedule import Clock


def config_of(kernel: str, remat: str, size: str = 'd16', side: str = '512'):
  """VAR of a published size over the scales of 512 px."""
  config = imagenet256.recipe(
    imagenet256.SIZES[size], tokenizer.get_config(side), ''
  )
  with config.unlocked():
    config.backbone.attention.kernel = kernel
    config.backbone.remat = remat
  return config


def compiled(config, topology: str, batch: int):
  """The train step, compiled for all chips of a topology.

  Args:
    config: of a generator of codes of classes.
    topology: as libtpu names it, 'v5p:2x2x1'.
    batch: global.
  """
  chips = topologies.get_topology_desc(
    topology_name=topology, platform='tpu'
  ).devices
  placement = Placement(make_mesh({'fsdp': -1}, chips))
  data = types.SimpleNamespace(
    shape=(*config.data.size, config.data.channels),
    classes=(),
    num_classes=config.condition.classes,
    examples=10**6,
  )
  tx = build(config.optim, 'optim').make(Clock(10**6, batch, data.examples))
  task = assemble.make_task(config, data, tx)
  state = start.Origin(task, placement, config.seed).abstract
  image = jnp.zeros((1, *data.shape))
  shapes = jax.eval_shape(task.tokenizer.init, jax.random.key(0), image)
  frozen = {'tokenizer': _on(shapes, placement.whole)}
  tokens = jax.ShapeDtypeStruct((batch, task.model.layout.tokens), jnp.int32)
  label = jax.ShapeDtypeStruct((batch,), jnp.int32)
  rows = _on({'tokens': tokens, 'label': label}, placement.batch)
  return start.compile_step(task, placement, state, frozen, rows)[0]


def _on(tree, sharding):
  return jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
    nn.unbox(tree),
  )


def main(argv=None):
  flags = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  flags.add_argument('--topology', default='v5p:2x2x1')
  flags.add_argument('--batch', type=int, default=64, help='global')
  flags.add_argument('--remat', default='dots')
  flags.add_argument('--kernels', default='dense,splash')
  flags = flags.parse_args(argv)
  for kernel in flags.kernels.split(','):
    step = compiled(config_of(kernel, flags.remat), flags.topology, flags.batch)
    memory = step.memory_analysis()
    row = {
      'kernel': kernel,
      'work_gib': round(memory.temp_size_in_bytes / 2**30, 2),
      'arguments_gib': round(memory.argument_size_in_bytes / 2**30, 2),
      'pallas_calls': step.as_text().count('tpu_custom_call'),
    }
    print(json.dumps(row), flush=True)


if __name__ == '__main__':
  main()
