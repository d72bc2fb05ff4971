#!/usr/bin/env bash
# The gRPC door of a running node, used from Python by grpcio alone: what there is to call comes by reflection.
#
#   tests/foreign/grpc/run.sh NODE_ADDR [OTHER_NODE_ADDR]
#
# Python packages go into a virtual environment of its own, in $DSTORE_FOREIGN_VENV or a temporary directory.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
node=${1:?usage: run.sh NODE_ADDR [OTHER_NODE_ADDR]}
other=${2:-$node}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
venv=${DSTORE_FOREIGN_VENV:-$work/venv}
if ! [ -x "$venv/bin/python" ] || ! "$venv/bin/python" -c 'import grpc_reflection, grpc_health' 2>/dev/null; then
  [ -x "$venv/bin/python" ] || python3 -m venv "$venv"
  "$venv/bin/pip" install --quiet --disable-pip-version-check grpcio grpcio-reflection grpcio-health-checking
fi
"$venv/bin/python" "$here/store.py" "$node" "$other"
