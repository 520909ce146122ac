"""That no option of a case is ignored silently."""

import json
import shutil

import numpy as np
import pytest

from tests.parity import check
from tests.parity.case import CASES, Case, System
from tests.parity.stated import NotCompared, Stated, generations

HALF = np.float32(0.5)


def _outputs(case):
  """A driver of a network with one width, which scales what it draws."""
  case.args.only(bias=True)
  width = case.args['width']
  yield 'z', np.full(width, HALF)
  yield 'loss', HALF
  yield 'gen', np.full(width, case.generation['cfg'], np.float32)


@pytest.fixture
def verdicts(tmp_path, monkeypatch):
  """Options -> name of an array or option -> (verdict, text)."""
  system = System(_outputs, set())
  monkeypatch.setitem(check.FORWARD, 'a.Network', system)

  def run(generation='sample(b, cfg=2.0)', gen=2.0, z=HALF, **constructor):
    meta = {
      'constructor': {'cls': 'a.Network', 'width': 3, **constructor},
      'generation': {'function': generation},
      'suggested': {'strict_rel_to_max': 1e-5},
    }
    (tmp_path / 'meta.json').write_text(json.dumps(meta))
    arrays = {'z': np.full(3, z), 'loss': HALF}
    arrays['gen'] = np.full(3, gen, np.float32)
    np.savez(tmp_path / 'io.npz', **arrays)
    found = check.results(Case(tmp_path))
    return {r.name: (r.verdict, r.text) for r in found}

  return run


def test_a_case_of_which_all_is_read_is_compared(verdicts):
  found = verdicts()
  assert {v for v, _ in found.values()} == {'ok'}
  assert [*found] == ['z', 'loss', 'gen']
  assert verdicts(gen=3.0)['gen'][0] == 'FAIL'


def test_an_option_that_is_not_read_is_named(verdicts):
  found = verdicts(depth=4)
  assert found['constructor.depth'] == (
    'not compared',
    'not read by the driver',
  )
  # What agrees all the same is compared.
  assert found['z'][0] == 'ok'
  found = verdicts(depth=4, z=HALF + 1)
  verdict, text = found['z']
  assert verdict == 'not compared' and 'constructor.depth' in text
  assert found['loss'][0] == 'ok'


def test_options_of_the_generation_bear_on_its_arrays_alone(verdicts):
  text = 'sample(b, cfg=2.0, schedule="cosine")'
  found = verdicts(text, gen=3.0, z=HALF + 1)
  assert found['z'][0] == 'FAIL'
  assert found['gen'][0] == 'not compared'
  assert 'generation.schedule' in found['gen'][1]
  assert found['generation.schedule'][0] == 'not compared'


def test_a_refused_option_is_named(verdicts):
  for verdict, text in verdicts(bias=False).values():
    assert verdict == 'not compared'
    assert text == 'constructor.bias=False: our parts have True alone'
  # What came before it was compared.
  found = verdicts('sample(b)')
  assert found['z'][0] == 'ok'
  assert found['gen'] == ('not compared', 'generation.cfg is not stated')


def test_errors_of_a_driver_fail(verdicts):
  found = verdicts('sample(b, cfg="many")')
  assert found['gen'][0] == 'FAIL' and 'ValueError' in found['gen'][1]


def test_rates_of_dropping_that_are_zero_change_nothing(verdicts):
  assert 'constructor.dropout' not in verdicts(dropout=0.0)
  assert 'constructor.dropout' in verdicts(dropout=0.1)


def test_generations_are_read_from_text_and_keys():
  text = 'f(model, 36, a=(1, 2), b="x", c=label, d=1.5) greedily; again '
  text += '(gen_more): d=2; gen_ode: the same'
  runs = generations({'function': text, 'a': [1, 2], 'steps': 3})
  assert list(runs) == ['gen', 'gen_more', 'gen_ode']
  assert dict(runs['gen']) == {
    'argument_1': 36,
    'a': [1, 2],
    'b': 'x',
    'c': 'label',
    'd': 1.5,
    'steps': 3,
  }
  runs = generations({'function': text, 'a': [1, 2], 'steps': 3})
  assert len(runs['gen_more']) == 6  # which reads none of them
  assert runs['gen_more']['d'] == 2 and runs['gen_more']['steps'] == 3
  assert runs['gen_more'].unread == []
  unread = ['argument_1', 'a', 'b', 'c', 'd']
  assert runs['gen'].unread == [f'generation.{k}' for k in unread]
  with pytest.raises(NotCompared, match=r'generation.d is 1.5 and 2'):
    generations({'function': text, 'd': 2})


def test_what_is_greedy_says_so_or_by_its_options():
  Stated('generation', {'kind': 'greedy', 'top_k': 9}).greedy(top_k=1)
  Stated('generation', {'top_k': 1}).greedy(top_k=1)
  for options in ({'kind': 'random', 'top_k': 1}, {'top_k': 9}):
    with pytest.raises(NotCompared, match='generation'):
      Stated('generation', options).greedy(top_k=1)


def test_limits_of_single_arrays_come_first(tmp_path):
  limits = {'strict_rel_to_max': 1e-6, 'strict_rel_to_max_generation': 1e-5}
  limits['strict_rel_to_max_per_array'] = {'gen_z': 1e-4}
  (tmp_path / 'meta.json').write_text(json.dumps({'suggested': limits}))
  case = Case(tmp_path)
  assert [case.limit(n) for n in ('z', 'gen', 'gen_z')] == [1e-6, 1e-5, 1e-4]
  with pytest.raises(NotCompared, match='there is no case other beside'):
    case.sibling('other')


def test_options_inside_others_are_read_too():
  stated = Stated('constructor', {'note': 'x', 'decoder': {'ch': 4, 'z': 2}})
  assert stated.inner('decoder')['ch'] == 4
  assert stated.unread == ['constructor.decoder.z']
  assert stated.first('a', 'b', 'decoder') == {'ch': 4, 'z': 2}


@pytest.fixture
def altered(tmp_path):
  """Changes of a recorded case's sections -> its results by name."""

  def run(name, **sections):
    folder = tmp_path / name
    shutil.copytree(CASES / name, folder, dirs_exist_ok=True)
    meta = json.loads((CASES / name / 'meta.json').read_text())
    for section, options in sections.items():
      meta[section] |= options
    (folder / 'meta.json').write_text(json.dumps(meta))
    return {r.name: r for r in check.results(Case(folder))}

  return run


def test_drivers_honour_options_or_name_them(altered):
  name = 'llamagen_gpt_c2i'
  found = altered(name, generation={'cfg_scale': 3.0, 'function': 'f(m)'})
  assert found['logits'].verdict == 'ok'
  assert found['gen_logits_cfg'].verdict == 'FAIL'
  unknown = {'generation': {'cfg_decay': 0.5}, 'constructor': {'qk_norm': True}}
  found = altered(name, **unknown)
  named = [n for n, r in found.items() if r.verdict == 'not compared']
  assert named == ['constructor.qk_norm', 'generation.cfg_decay']
  refused = altered(name, constructor={'n_kv_head': 2})
  assert {r.verdict for r in refused.values()} == {'not compared'}
  assert all('constructor.n_kv_head=2' in r.text for r in refused.values())


@pytest.mark.parametrize(
  ('name', 'option'),
  [
    ('mar', {'num_sampling_steps': 'ddim5'}),
    ('mar_vae', {'use_variational': False}),
    ('xar', {'patch_size': 2}),
    ('himar', {'cond_dim': 8}),
    ('flowar_s', {'buffer_size': 4}),
    ('tokenbridge', {'norm_eps': 1e-5}),
    ('flexvar', {'pos_grid': '32x16'}),
    ('titok', {'quantize_mode': 'vae'}),
    ('maskgit_vq', {'embedding_dim': 8}),
    ('nar', {'cls_token_num': 4}),
  ],
)
def test_what_our_parts_do_not_have_is_refused(altered, name, option):
  found = altered(name, constructor=option)
  (key,) = option
  refused = [r for r in found.values() if f'constructor.{key}=' in r.text]
  assert refused and {r.verdict for r in refused} == {'not compared'}
