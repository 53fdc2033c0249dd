"""``python -m demos_replay``: the command ``demos-replay``, see :mod:`demos_replay.cli`."""

import sys

from demos_replay.cli import main

if __name__ == "__main__":
    sys.exit(main())
