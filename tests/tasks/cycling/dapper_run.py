"""Filter Lorenz-96 with DAPPER, and save truth, observations and the errors of its methods. Run in its own environment.

Usage: python dapper_run.py FILE STEPS SPIN_UP
"""

from __future__ import annotations

import sys

import dapper
import numpy as np
from dapper.da_methods import EnKF, OptInterp, Var3D
from dapper.mods.Lorenz96.sakov2008 import HMM

file, steps, spin_up = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
dapper.rc.liveplotting = False
dapper.set_seed(3000)
HMM.tseq.Ko = steps - 1
HMM.tseq.BurnIn = spin_up * HMM.tseq.dt
truth, observations = HMM.simulate()
errors = {}
for name, method in {
    "optimal_interpolation": OptInterp(),
    "var3d": Var3D(xB=0.02),
    "enkf": EnKF("PertObs", N=40, infl=1.06),
    "enkf_sqrt": EnKF("Sqrt", N=24, infl=1.03, rot=True),
}.items():
    method.assimilate(HMM, truth, observations, liveplots=False)
    errors[name] = method.stats.err.rms.a[spin_up:].mean()
np.savez(file, truth=truth[1:], observations=np.stack(observations), **errors)
