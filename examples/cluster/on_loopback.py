"""`python on_loopback.py [NODE_CPUS ...]`: a Ray cluster on this machine until input ends. Its head has no processors.

Says its address and the raylets' process ids, one line of JSON, and again after each line that it is told:
`node CPUS` starts a node, `fall INDEX` ends a node with all that runs on it, without a word.
"""

from __future__ import annotations

import json
import os
import sys

HEALTH = {"period_ms": 1000, "timeout_ms": 1000, "failure_threshold": 3, "initial_delay_ms": 1000}
"""Ray's own would believe in a node for half a minute after its end."""


def main() -> None:
    said = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # Ray prints
    os.environ.update({f"RAY_health_check_{name}": str(value) for name, value in HEALTH.items()})
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    from ray.cluster_utils import Cluster

    house = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    nodes = [house.add_node(num_cpus=int(count)) for count in sys.argv[1:]]

    def tell() -> None:
        raylets = [node.all_processes["raylet"][0].process.pid for node in nodes if node.all_processes.get("raylet")]
        print(json.dumps({"address": house.address, "raylets": raylets}), file=said, flush=True)

    try:
        tell()
        for line in sys.stdin:
            match line.split():
                case ["node", count]:
                    nodes.append(house.add_node(num_cpus=int(count)))
                case ["fall", index]:
                    house.remove_node(nodes.pop(int(index)), allow_graceful=False)
                case _:
                    raise ValueError(line)
            tell()
    finally:
        house.shutdown()


if __name__ == "__main__":
    main()
