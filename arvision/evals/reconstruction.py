"""Evaluates a tokenizer: reconstruction quality and codebook usage."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import ClassVar

import jax
import numpy as np

from arvision.errors import DataError
from arvision.evals.base import Metrics, Run
from arvision.evals.image import psnr, squared_error, ssim, window_size
from arvision.evals.protocol import size_name
from arvision.parallel import host
from arvision.ranges import Count
from arvision.structs import TokenSpec


@dataclasses.dataclass(frozen=True)
class Reconstruction:
  """PSNR, SSIM and codebook usage over the held-out split.

  Attributes:
    batch_size: images per call.
    every: see `Evaluator`.
  """

  batch_size: Count = 100
  every: Mapping[str, float] | None = None
  needs: ClassVar[tuple[str, ...]] = ()

  def __call__(self, run: Run) -> Iterator[tuple[str, float]]:
    """Encodes and decodes every held-out image once.

    Yields:
      `psnr_db`: mean PSNR of the images, in dB.
      `psnr_of_mean_db`: PSNR of the mean squared error of all images, in dB; at
        most `psnr_db`.
      `ssim`: mean over images; the name states the window.
      `codebook_usage/.../<scale>`: share of the vocabulary that occurs at a
        scale, and in `all` scales.
      `codebook_reach/.../<scale>`: largest usage possible with that many
        held-out tokens.
      `codebook_perplexity/.../<scale>`: exp of the entropy of the codes: 1 for
      a
        collapsed scale, the vocabulary size for uniform codes.
      Codebook figures are for tokenizers with codes only.

    Raises:
      DataError: the data has no held-out split.
    """
    data, spec = run.data, run.spec
    if not data.held_out_examples:
      raise DataError(
        'reconstruction is measured on held-out images, and there are none: '
        'set config.data.held_out_share'
      )
    run.say(f'reconstruction of {data.held_out_examples} held-out images')
    window = window_size(data.shape)
    measure = jax.jit(
      lambda a, b: (squared_error(a, b), ssim(a, b, window=window))
    )
    counts = CodeCounts.empty(spec) if spec.codes else None
    errors, similarities = [], []
    for batch in host.own_pass(data.held_out, self.batch_size):
      values = run.encode(batch['image'])
      error, similarity, values, weight = host.gather(
        (*measure(batch['image'], run.decode(values)), values, batch['weight'])
      )
      real = weight > 0
      errors.append(error[real].astype(np.float64))
      similarities.append(similarity[real].astype(np.float64))
      if counts is not None:
        counts = counts.add(values[real])
    error = np.concatenate(errors)
    if not error.size:
      raise DataError(
        f'none of {data.held_out_examples} held-out images can be used: all are '
        'broken or lack caption features (config.data.text)'
      )
    protocol = f'held-out-{run.name}-{size_name(data.shape)}'
    yield f'psnr_db/{protocol}', float(np.mean(psnr(error)))
    yield f'psnr_of_mean_db/{protocol}', float(psnr(np.mean(error)))
    similarity = float(np.mean(np.concatenate(similarities)))
    yield f'ssim/{protocol}-gauss{window}', similarity
    if counts is not None:
      yield from counts.metrics(protocol).items()


@dataclasses.dataclass(frozen=True)
class CodeCounts:
  """Counts of every code at every scale.

  Attributes:
    spec: token spec of the tokenizer.
    table: (scales, vocabulary) int64.
  """

  spec: TokenSpec
  table: np.ndarray

  @classmethod
  def empty(cls, spec: TokenSpec) -> 'CodeCounts':
    return cls(spec, np.zeros((len(spec.grids), spec.size), np.int64))

  def add(self, codes: np.ndarray) -> 'CodeCounts':
    """Counts with (b, t) further codes."""
    sizes = [height * width for height, width in self.spec.grids]
    scales = np.split(codes, np.cumsum(sizes)[:-1], axis=1)
    counts = [np.bincount(s.ravel(), minlength=self.spec.size) for s in scales]
    return CodeCounts(self.spec, self.table + np.stack(counts))

  @property
  def names(self) -> list[str]:
    """'1x1', '2x2', ..., with the index in front if grids repeat."""
    names = [f'{height}x{width}' for height, width in self.spec.grids]
    if len(set(names)) < len(names):
      names = [f'{i}-{name}' for i, name in enumerate(names)]
    return names

  def metrics(self, protocol: str) -> Metrics:
    """Usage, reach and perplexity per scale and over all scales."""
    result = {}
    counts = dict(zip(self.names, self.table))
    if len(counts) > 1:
      counts['all'] = self.table.sum(0)
    for name, count in counts.items():
      result[f'codebook_usage/{protocol}/{name}'] = float(np.mean(count > 0))
      share = count[count > 0] / max(count.sum(), 1)
      perplexity = np.exp(-np.sum(share * np.log(share)))
      result[f'codebook_perplexity/{protocol}/{name}'] = float(perplexity)
      reach = min(count.sum(), self.spec.size) / self.spec.size
      result[f'codebook_reach/{protocol}/{name}'] = float(reach)
    return result
