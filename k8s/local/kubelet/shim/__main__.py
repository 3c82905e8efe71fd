"""`python -I -S .../shim/__main__.py run|exec|probe`, with a JSON document on stdin (run, exec) or without (probe)."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[4]))

if __name__ == "__main__":
    verb = sys.argv[1] if len(sys.argv) > 1 else ""
    if verb == "run":
        from k8s.local.kubelet.shim.container import main
    elif verb == "exec":
        from k8s.local.kubelet.shim.session import main
    elif verb == "probe":
        from k8s.local.kubelet.shim.detect import main
    else:
        sys.exit("usage: run | exec | probe")
    sys.exit(main())
