"""Tools beside training: profiles and writers of metrics."""

import jax
import pytest

from arvision.commands import main
from arvision.errors import ConfigError
from arvision.training import profile
from tests.parts import training_toys as toys


def test_a_profile_holds_the_steps_that_it_was_asked_for(tmp_path, capsys):
  config = toys.config()
  with pytest.raises(ConfigError, match='--profile=9:13: .* after step 12'):
    toys.run(config, tmp_path, profile=(9, 13))
  assert not (tmp_path / 'config.json').exists()
  toys.run(config, tmp_path, profile=(2, 4), stop_at=6)
  assert 'steps 2 to 4 are profiled' in capsys.readouterr().out
  (file,) = tmp_path.glob('tensorboard/plugins/profile/*/*.xplane.pb')
  found = jax.profiler.ProfileData.from_file(str(file))
  steps = {
    dict(event.stats).get('step_num')
    for plane in found.planes
    for line in plane.lines
    for event in line.events
    if event.name == 'train'
  }
  assert steps == {2, 3, 4}
  toys.run(config, tmp_path, profile=(2, 4), stop_at=7)
  assert 'no profile: steps 2 to 4 are already' in capsys.readouterr().out


def test_wrong_profiles_are_refused(capsys):
  for text in ('5', '5:', '0:3', '7:3', '1.5:3', '1:2000'):
    with pytest.raises(ConfigError, match='--profile=.*wanted'):
      profile.parse(text)
  line = ['train', '--config=var/digits', '--workdir=x', '--profile=7:3']
  assert main.main(line) == 2
  assert capsys.readouterr().err.count('\n') == 1
