"""Makes the child that exports a chosen artifact abort or hang: what a broken converter does."""

import json
import os
import sys
import time
from pathlib import Path

chosen = os.environ.get("TINY_PROJECT_BREAK", "")
if chosen and "edgekit.pipeline.entries:export_artifact" in sys.orig_argv:
    how, _, wanted = chosen.partition(":")
    request = json.loads(Path(sys.orig_argv[-2]).read_text())
    if f"{request['format']}/{request['precision']}" == wanted:
        if how == "hang":
            time.sleep(600)
        os.abort()
