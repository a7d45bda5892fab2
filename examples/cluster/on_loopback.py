"""`python on_loopback.py [NODE_CPUS ...]`: a Ray cluster on this machine until input ends. Its head has no processors.

Says its address and its nodes, by their raylets' process ids, in one line of JSON, and again after each line that it is
told: `node CPUS` starts a node, `fall INDEX` ends a node with all that runs on it, without a word. It is a session of
its own, of which nobody is left when it ends.
"""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from typing import Any

import psutil

HEALTH = {"period_ms": 1000, "timeout_ms": 1000, "failure_threshold": 10, "initial_delay_ms": 1000}
"""Ray by itself believes in a silent node for longer; on a machine that does much else these may be slow to answer."""
STORE_BYTES = 80 * 1024 * 1024
"""Of each node's object store: no frame goes there."""
TRIES = 4


def main() -> None:
    if os.getpid() != os.getsid(0):
        os.setsid()
    said = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # Ray prints
    os.environ.update({f"RAY_health_check_{name}": str(value) for name, value in HEALTH.items()})
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    from ray.cluster_utils import Cluster

    def node(**arguments: object) -> Any:
        """Ray gives up on a node after 30 s, which on a machine that does much else says nothing of it."""
        whole = {"object_store_memory": STORE_BYTES, **arguments}
        for _ in range(TRIES - 1):
            with suppress(Exception):
                return house.add_node(**whole)
        return house.add_node(**whole)

    house = Cluster()
    try:
        node(num_cpus=0, include_dashboard=False)
        nodes = [node(num_cpus=int(count)) for count in sys.argv[1:]]

        def tell() -> None:
            raylets = [one.all_processes["raylet"][0].process.pid for one in nodes]
            print(json.dumps({"address": house.address, "raylets": raylets}), file=said, flush=True)

        tell()
        for line in sys.stdin:
            match line.split():
                case ["node", count]:
                    nodes.append(node(num_cpus=int(count)))
                case ["fall", index]:
                    house.remove_node(nodes.pop(int(index)), allow_graceful=False)
                case _:
                    raise ValueError(line)
            tell()
    finally:
        house.shutdown()
        end_session()


def end_session() -> None:
    """Kill whom Ray has left: what a raylet had started when it was killed."""
    for process in psutil.process_iter():
        with suppress(OSError):
            if process.pid != os.getpid() and os.getsid(process.pid) == os.getsid(0):
                process.kill()


if __name__ == "__main__":
    main()
