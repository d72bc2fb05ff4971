#!/usr/bin/env bash
# schemathesis: requests made of /openapi.json, right and wrong ones, and whether every answer is one that the document
# allows.
#
#   schema.sh NODE_URL VENV_DIR WORK_DIR
#
# DSTORE_SCHEMA_EXAMPLES: requests of each operation in each phase [25]; DSTORE_SCHEMA_SEED [1].
set -euo pipefail

node=$1 venv=$2 work=$3
if ! [ -x "$venv/bin/schemathesis" ]; then
  python3 -m venv "$venv"
  "$venv/bin/pip" install --quiet --disable-pip-version-check 'schemathesis>=4,<5'
fi
here=$(cd "$(dirname "$0")" && pwd)
cd "$work"
# A blob that is there, for the requests by hash.
hash=$(curl -sSf -o /dev/null -D - -T - "$node/v1/kv/default/schema-$RANDOM$RANDOM" <<<"a value" |
  tr -d '\r"' | awk -F': ' 'tolower($1) == "etag" { print $2 }')
{
  cat "$here/schemathesis.toml"
  printf '\n[[operations]]\ninclude-path = "/v1/blob/{hash}"\nparameters = { "path.hash" = "%s" }\n' "$hash"
} >schemathesis.toml
# A watch has no end, so it is left out; curl looks at it.
PYTHONPATH=$here PYTHONDONTWRITEBYTECODE=1 SCHEMATHESIS_HOOKS=schema_hooks \
  "$venv/bin/schemathesis" --config-file schemathesis.toml run "$node/openapi.json" --exclude-path /v1/watch \
  --max-examples "${DSTORE_SCHEMA_EXAMPLES:-25}" --seed "${DSTORE_SCHEMA_SEED:-1}" --no-color
