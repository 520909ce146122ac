"""`python -m arvision`."""

from arvision.commands.main import run

if __name__ == '__main__':
  run()
