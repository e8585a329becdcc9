"""``python -m infoloss`` is ``infoloss``."""

import sys

from infoloss.cli import main

if __name__ == "__main__":
    sys.exit(main())
