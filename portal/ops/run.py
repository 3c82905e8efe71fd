"""`python -m portal.ops.run NAME`: become one process of the installation, after what it needs answers.

Light on purpose: seven of these start at once, and whatever each imports is paid for seven times. What needs no Django is
exec'ed without having loaded it; what needs it is run in this process, so that it is loaded once.
"""

from __future__ import annotations

import os
import sys

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "portal.settings")

from portal.ops import processes


def main() -> int:
    if len(sys.argv) != 2 or sys.argv[1] not in processes.PROGRAMS:
        print(f"usage: python -m portal.ops.run {'|'.join(processes.PROGRAMS)}", file=sys.stderr)
        return 2
    try:
        processes.become(sys.argv[1])
    except TimeoutError as error:
        print(f"{sys.argv[1]} cannot start: {error}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    raise SystemExit(main())
