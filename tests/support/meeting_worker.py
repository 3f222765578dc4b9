"""One process of a worker group that says who listens: `python meeting_worker.py launcher` or `... <file to meet at>`.

With `<time limit> <pause>` behind the file, in seconds, the processes do nothing for a while between two collectives.
"""

from __future__ import annotations

import json
import os
import sys
import time
from datetime import timedelta
from pathlib import Path

import psutil
import torch.distributed as dist

from configs.interfaces import collective_environment
from student_train.worker_group import join_group, meet

if __name__ == "__main__":
    if sys.argv[1] != "launcher":
        os.environ.update(collective_environment("127.0.0.1"))
        rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        limit, pause = (float(each) for each in sys.argv[2:4] or ("60", "0"))
        meet(Path(sys.argv[1]), rank=rank, size=size, backend="gloo", timeout=timedelta(seconds=limit))
        dist.barrier()
        time.sleep(pause)
    group = join_group("cpu")
    here = psutil.Process().net_connections(kind="inet")
    listening = [each.laddr.ip for each in here if each.status == psutil.CONN_LISTEN]
    # Nobody leaves before all have looked.
    group.barrier()
    sys.stdout.write(json.dumps({"size": group.world_size, "listening": listening}) + "\n")
    sys.stdout.flush()
    dist.destroy_process_group()
