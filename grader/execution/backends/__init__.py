"""Where runs are executed: on the host's /dev/kvm or in the lab VM, with the same interface.

    backend = pick_backend(os.environ.get("BACKEND", "auto"), needs=("real", "interrupts"))
    print(backend.why)
    results = backend.run(runs, jobs=2)
"""

from grader.execution.worker import Backend
from grader.execution.backends.pick import Picker, pick_backend
from grader.execution.kvm_probe import KINDS

__all__ = ["Backend", "KINDS", "Picker", "pick_backend"]
