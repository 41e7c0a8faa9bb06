"""`python -m tilesmith.cli`: the command for whoever has no scripts folder on PATH."""

import sys

from tilesmith.cli.entry import main

sys.exit(main())
