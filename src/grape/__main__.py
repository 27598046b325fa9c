"""``python -m grape`` is the command ``grape``."""

import sys

from grape.cli.main import main

sys.exit(main())
