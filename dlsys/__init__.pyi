from dlsys.api.model import load_model as load_model
from dlsys.api.run import resume as resume
from dlsys.api.run import run as run
from dlsys.api.runs import Run as Run
from dlsys.api.runs import find as find
from dlsys.api.runs import runs as runs
from dlsys.api.sweep import Sweep as Sweep
from dlsys.api.sweep import sweep as sweep

__version__: str
