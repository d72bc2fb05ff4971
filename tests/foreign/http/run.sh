#!/usr/bin/env bash
# The HTTP door of a running node, used by clients nobody here wrote: curl, and schemathesis, which makes requests of
# /openapi.json and looks whether the answers are what it says.
#
#   tests/foreign/http/run.sh NODE_HTTP_ADDR [OTHER_NODE_HTTP_ADDR]
#
# Leaves names in the namespaces `curl` and `default`. Python packages go into a virtual environment of its own, in
# $DSTORE_FOREIGN_VENV or a temporary directory.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
node=${1:?usage: run.sh NODE_HTTP_ADDR [OTHER_NODE_HTTP_ADDR]}
other=${2:-$node}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$here/curl.sh" "http://$node" "http://$other" "$work"
venv=${DSTORE_FOREIGN_VENV:-$work/venv}
"$here/schema.sh" "http://$node" "$venv" "$work"
