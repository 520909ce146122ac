"""No file and no class of the package grows past what a reader can hold."""

import dataclasses
import importlib
import inspect
import pkgutil

import pytest

import arvision
from tests.parts.test_imports import FILES, ROOT

LINES, FIELDS = 400, 16


@pytest.mark.parametrize('path', FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_files_are_short(path):
  assert len(path.read_text().splitlines()) <= LINES


def test_classes_have_few_fields():
  large = []
  for module in pkgutil.walk_packages(arvision.__path__, 'arvision.'):
    if '.configs' in module.name or module.name.endswith('__main__'):
      continue
    for value in vars(importlib.import_module(module.name)).values():
      if inspect.isclass(value) and dataclasses.is_dataclass(value):
        # What Flax adds to every module is none of its own.
        names = {f.name for f in dataclasses.fields(value)} - {'parent', 'name'}
        if value.__module__ == module.name and len(names) > FIELDS:
          large.append(f'{module.name}.{value.__name__}: {len(names)}')
  assert not large
