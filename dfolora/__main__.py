"""``python -m dfolora`` is the ``dfolora`` command."""

import sys

from dfolora.cli import main

sys.exit(main())
