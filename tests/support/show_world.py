"""Print, as one line of JSON, the places that a launcher gave this process: among others, and by itself."""

from __future__ import annotations

import json
import os
import sys

from wds_real.data.launchers import independent_world, launched_world
from wds_real.errors import PlanError

together = launched_world()
try:
    independent = independent_world()
    alone = f"{independent.rank} of {independent.world_size}"
except PlanError as error:
    alone = str(error)
line = {
    "together": f"{together.rank} of {together.world_size}",
    "local": together.local_rank,
    "alone": alone,
    "restarts": os.environ.get("SLURM_RESTART_COUNT", "0"),
}
sys.stdout.write(json.dumps(line) + "\n")
