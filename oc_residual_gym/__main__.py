"""``python -m oc_residual_gym``: the command ``oc-residual``, see :mod:`oc_residual_gym.cli`."""

import sys

from oc_residual_gym.cli import main

if __name__ == "__main__":
    sys.exit(main())
