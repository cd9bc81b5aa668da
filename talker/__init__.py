"""talker: a short video of a person talking becomes an avatar that says anything."""

import os

# Before torch loads its OpenMP: threads that wait by spinning take the cores from the renderer's own threads and
# from whatever else runs; on a busy two-core machine training was ten times slower with the default.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

__version__ = "0.1.0"
