"""One side of a case in a process of its own, for its peak memory: `python -m ttsadapt.bench.alone <case as JSON> <side> <threads>`."""

import json
import sys


def main() -> None:
    import torch
    from hydra.utils import instantiate

    from ttsadapt.bench.base import Case
    from ttsadapt.callbacks.throughput import peak_memory
    from ttsadapt.trainer import quiet

    quiet()
    node, side, threads = json.loads(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    if threads:
        torch.set_num_threads(threads)
    case: Case = instantiate(node)
    case.sides()[side]()()
    print(peak_memory()["resident_gib"])


if __name__ == "__main__":
    main()
