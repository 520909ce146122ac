"""A cache of trained classifiers on disk, one per data set and recipe."""

import dataclasses
import hashlib
import json
import os
import pathlib
import zipfile
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from absl import logging
from flax import traverse_util

from arvision import atomic
from arvision.data.base import Data
from arvision.evals.classifier import Classifier, Recipe
from arvision.parallel import host

# Increment when `Network` or its training changes: it invalidates older files.
_VERSION = 2


def fingerprint(recipe: Recipe, data: Data, description: Any) -> str:
  """The cache key, 16 hex digits.

  Args:
    recipe: all fields count.
    data: shape, classes and all examples count, not where they are stored.
    description: the preparation of the images, JSON values.
  """
  facts = {
    'version': _VERSION,
    'recipe': dataclasses.asdict(recipe),
    'data': description,
    'shape': list(data.shape),
    'classes': list(data.classes),
    'examples': data.digest,
  }
  text = json.dumps(facts, sort_keys=True, default=str)
  return hashlib.sha256(text.encode()).hexdigest()[:16]


def load_or_train(
  recipe: Recipe,
  data: Data,
  description: Any,
  folder: pathlib.Path | None = None,
  say: Callable[[str], None] = lambda text: None,
) -> Classifier:
  """Loads the classifier of a data set from the cache, or trains it.

  Args:
    recipe: how it is trained.
    data: its training data.
    description: see `fingerprint`.
    folder: the cache, see `folder_of`.
    say: called with lines about the progress.

  Raises:
    ConfigError: fewer than two classes.
  """
  name = f'{fingerprint(recipe, data, description)}.npz'
  path = folder_of(folder) / name
  classifier = _load(path, recipe.network(data.num_classes))
  if classifier is not None:
    say(f'classifier: {path}')
  else:
    say(
      f'classifier: training on {data.examples} images, once; cached as {path}'
    )
    classifier = recipe.train(data, say)
    if jax.process_index() == 0:
      try:
        _save(path, classifier)
      except OSError as error:  # this run can use it all the same
        say(f'classifier: {path} cannot be written: {error.strerror or error}')
  # Another process may have found no file and trained its own.
  variables = host.as_first(classifier.variables)
  return dataclasses.replace(classifier, variables=variables)


def folder_of(folder: str | os.PathLike | None) -> pathlib.Path:
  """The cache folder; None: `classifiers` in `host.cache_folder()`."""
  return pathlib.Path(folder or host.cache_folder() / 'classifiers')


def _save(path, classifier):
  flat = traverse_util.flatten_dict(classifier.variables, sep='/')
  facts = {'accuracy': classifier.accuracy, 'seconds': classifier.seconds}
  with atomic.whole(path) as new, new.open('wb') as file:
    np.savez(file, facts=json.dumps(facts), **flat)


def _load(path, network):
  if not path.exists():
    return None
  try:
    with np.load(path, allow_pickle=False) as arrays:
      flat = {k: arrays[k] for k in arrays.files}
    facts = json.loads(str(flat.pop('facts')))
    variables = traverse_util.unflatten_dict(flat, sep='/')
    return Classifier(network, variables, facts['accuracy'], facts['seconds'])
  except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
    logging.warning('%s cannot be read (%s); training again', path, error)
    return None
