#!/usr/bin/env bash
# Starts Ray on this node, and on the first one runs a command once all nodes are there. Ray ends with the command, and it
# alone: others' Ray on the same machine goes on. Run it on every node at once:
#
#     HEAD=10.0.0.1 PORT=6399 NODES=2 RANK=0 RAY_AUTH_TOKEN=... deploy/ray-nodes.sh distill run ... --ray-address 10.0.0.1:6399
#
# HEAD is the address of the first node, RANK counts from 0. NODE_ADDRESS is this node's own, where Ray cannot tell.
# WAIT_S bounds how long nodes wait for each other.
set -euo pipefail

: "${HEAD:?the address of the first node}" "${PORT:?the port of Ray there}" "${NODES:?how many}" "${RANK:?which one this is}"
: "${RAY_AUTH_TOKEN:?a word that all nodes know and nobody else: without it whoever reaches the port may run what he likes}"
export RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0
# Ray would run engines and trainings as background work.
export RAY_worker_niceness=0
WAIT_S="${WAIT_S:-900}"
mine=(--node-ip-address "${NODE_ADDRESS:-$HEAD}")

head_is_there() {
    # In bash itself: nothing has to be installed for it.
    timeout 5 bash -c "exec 3<>/dev/tcp/$HEAD/$PORT" 2>/dev/null
}

if [ "$RANK" != 0 ]; then
    mine=()
    [ -z "${NODE_ADDRESS:-}" ] || mine=(--node-ip-address "$NODE_ADDRESS")
    # It ends because the first node is done, or not yet there, or because it is lost itself.
    joined=""
    while true; do
        until head_is_there; do
            [ -z "$joined" ] || exit 0
            [ "$SECONDS" -lt "$WAIT_S" ] || { echo "ray-nodes: nothing answers at $HEAD:$PORT after $WAIT_S s" >&2; exit 1; }
            sleep 1
        done
        joined=yes
        ray start --address "$HEAD:$PORT" "${mine[@]}" --block && status=0 || status=$?
        [ "$SECONDS" -lt "$WAIT_S" ] || ! head_is_there || exit "$((status == 0 ? 1 : status))"
        sleep 1
    done
fi

# Waits until all nodes are there; fails where they do not come.
all_there() {
    python - "$HEAD:$PORT" "$NODES" "$WAIT_S" <<'PYTHON'
import sys
import time

import ray

address, nodes, until = sys.argv[1], int(sys.argv[2]), time.monotonic() + float(sys.argv[3])
while time.monotonic() < until:
    try:
        if not ray.is_initialized():
            ray.init(address=address, log_to_driver=False, configure_logging=False)
        if sum(node["Alive"] for node in ray.nodes()) >= nodes:
            sys.exit(0)
    except (ConnectionError, RuntimeError, ValueError):
        pass  # not yet
    time.sleep(1)
sys.exit(f"ray-nodes: not all {nodes} nodes came within {sys.argv[3]} s")
PYTHON
}

ray="" waiting=""
end_ray() {
    kill -TERM $ray $waiting 2>/dev/null || true
    wait $ray 2>/dev/null || true
}
trap end_ray EXIT
trap 'exit 143' TERM INT

# Ray gives up on a node that takes longer than half a minute to come up, as a busy one does.
there=""
for _ in 1 2 3; do
    ray start --head "${mine[@]}" --port "$PORT" --include-dashboard=false --block &
    ray=$!
    all_there &
    waiting=$!
    wait -n "$ray" "$waiting" && status=0 || status=$?
    if kill -0 "$ray" 2>/dev/null; then
        [ "$status" = 0 ] || exit "$status"
        there=yes
        break
    fi
    kill -TERM "$waiting" 2>/dev/null || true
done
[ -n "$there" ] || { echo "ray-nodes: Ray does not start here; see above" >&2; exit 1; }
waiting=""

"$@" &
command=$!
# Who is told to end tells the command, which commits what it has.
trap 'kill -TERM "$command" 2>/dev/null || true' TERM INT
status=0
while kill -0 "$command" 2>/dev/null; do
    wait "$command" && status=0 || status=$?
done
exit "$status"
