"""``python -m scripts.recipes``, see ``command.py``."""

import sys

from scripts.recipes.command import main

if __name__ == "__main__":
    sys.exit(main())
