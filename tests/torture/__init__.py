"""The fault harness: `make torture`. Whatever is done to the server, every frame comes once, in order, with its bytes.

Not a test of the suite: it takes an hour and counts. `make torture QUICK=1` takes less than three minutes. Servers,
engines and examples are those of the tests.

    figures      what is counted, kept in torture.json, shown as a table
    frames       one stream followed to its end, every frame checked
    house        owner, supervisor, front and workers as processes under watch
    proxy        a TCP proxy on loopback that spoils what passes through it
    target       one message and everything it reaches inside one process; fuzz: the same, led by coverage
    phase_*      what is done to them
    soak_client  one user of the soak, a process of its own

A new phase is a page `phase_x.py` with `run(plan)`, a generator: for each of `plan.cases()` it does one thing, tells
`plan.figures` what it found by `find`, and yields; the case's own source of chance comes with it. It gets a line in
`__main__.PARTS`, and in docs/reliability.md. A new kind of process gets its role in `house.role_of`, so that it is
killed, stopped and watched like the others.
"""

import sys
from pathlib import Path

HERE = Path(__file__).parent
for neighbour in ("serve", "wire"):
    sys.path.append(str(HERE.parent / neighbour))
