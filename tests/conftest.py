"""Property tests draw the same examples in every run: a change is judged by what it did, not by what was drawn that day.

`make explore` draws others each time. What it finds becomes a test of its own.
"""

from __future__ import annotations

import os

from hypothesis import settings

settings.register_profile("repeatable", derandomize=True)
settings.register_profile("explore", print_blob=True)
settings.load_profile(os.environ.get("JADEVECTORDB_EXAMPLES", "repeatable"))
