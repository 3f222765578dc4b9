"""`python -m orchestration` is the same as `distill`."""

from __future__ import annotations

import sys

from orchestration.commands.main import main

sys.exit(main())
