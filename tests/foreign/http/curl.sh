#!/usr/bin/env bash
# curl against one node and another: HTTP/1.1 and HTTP/2, uploads of known and unknown length, ranges, conditions, watch.
#
#   curl.sh NODE_URL OTHER_NODE_URL WORK_DIR
set -euo pipefail

node=$1 other=$2 work=$3
kv=$node/v1/kv/curl far=$other/v1/kv/curl
run=$RANDOM$RANDOM
checks=0

fail() { echo "FAILED: $*" >&2; exit 1; }

# status WANTED CURL-ARGUMENTS...: the status of one request, whose headers and body are left in $work.
status() {
  local wanted=$1 got
  shift
  got=$(curl -sS --max-time 60 -o "$work/body" -D "$work/headers" -w '%{http_code}' "$@")
  [ "$got" = "$wanted" ] || fail "wanted $wanted, got $got: curl $* : $(head -c 400 "$work/body")"
  checks=$((checks + 1))
}
header() { tr -d '\r' <"$work/headers" | awk -F': ' -v name="$1" 'tolower($1) == name { print $2 }' | tail -1; }
same() { cmp -s "$1" "$2" || fail "$1 and $2 differ: $3"; checks=$((checks + 1)); }
equal() { [ "$1" = "$2" ] || fail "$3: wanted \`$2\`, got \`$1\`"; checks=$((checks + 1)); }

head -c 100 /dev/urandom >"$work/small"
head -c 65536 /dev/urandom >"$work/medium"
head -c 5000000 /dev/urandom >"$work/large"
: >"$work/empty"

for http in --http1.1 --http2-prior-knowledge; do
  for value in empty small medium large; do
    key=$run$http/$value
    status 201 $http -T "$work/$value" "$kv/$key"
    tag=$(header etag)
    status 204 $http -T "$work/$value" "$kv/$key"
    status 200 $http "$far/$key"
    same "$work/body" "$work/$value" "$http $value at the other node"
    equal "$(header etag)" "$tag" "$http the tag at the other node"
    equal "$(header content-length)" "$(stat -c %s "$work/$value")" "$http the length"
    status 200 $http -I "$far/$key"
    status 304 $http -H "If-None-Match: $tag" "$far/$key"
    status 200 $http "$node/v1/blob/$(tr -d '"' <<<"$tag")"
    same "$work/body" "$work/$value" "$http $value by hash"
  done
  key=$run$http/large
  # A value of unknown length, from standard input, with and without asking first.
  status 201 $http -T - "$kv/$key.stdin" <"$work/large"
  status 200 $http "$far/$key.stdin"
  same "$work/body" "$work/large" "$http from standard input"
  if [ $http = --http1.1 ]; then
    status 201 $http -H 'Expect: 100-continue' -T "$work/medium" "$kv/$key.expect"
    grep -q '^HTTP/1.1 100' "$work/headers" || fail "no 100 Continue came"
  fi
  # Ranges.
  status 206 $http -r 1000-1999 "$kv/$key"
  head -c 2000 "$work/large" | tail -c 1000 >"$work/part"
  same "$work/body" "$work/part" "$http bytes 1000 to 1999"
  status 206 $http -r -10 "$kv/$key"
  tail -c 10 "$work/large" >"$work/part"
  same "$work/body" "$work/part" "$http the last ten bytes"
  status 416 $http -r 5000000- "$kv/$key"
  equal "$(header content-range)" "bytes */5000000" "$http no byte of it is there"
  head -c 2000000 "$work/large" >"$work/resumed"
  curl -sS --max-time 60 $http -C - -o "$work/resumed" "$kv/$key" || fail "$http a download does not resume"
  same "$work/resumed" "$work/large" "$http a download that was resumed"
  # Conditions, occupied names, deletes.
  status 412 $http -H 'If-None-Match: *' -T "$work/large" "$kv/$key"
  status 409 $http -T "$work/small" "$kv/$key"
  equal "$(header content-type)" application/problem+json "$http a refusal is a problem"
  status 204 $http -X DELETE "$far/$key"
  status 404 $http "$kv/$key"
  status 404 $http -X DELETE "$kv/$key"
  status 412 $http -H 'If-Match: *' -T "$work/small" "$kv/$key.cond"
  status 201 $http -H 'If-None-Match: *' -T "$work/small" "$kv/$key.cond"
  tag=$(header etag)
  status 412 $http -H 'If-Match: "other"' -X DELETE "$far/$key.cond"
  status 204 $http -H "If-Match: $tag" -X DELETE "$far/$key.cond"
  # What is said besides: a type, and a time to live.
  status 201 $http -H 'Content-Type: text/html' -H 'X-Dstore-TTL-Ms: 3600000' -T "$work/small" "$kv/$key.typed"
  status 200 $http "$far/$key.typed"
  equal "$(header content-type)" text/html "$http the type at the other node"
  [ "$(header x-dstore-ttl-ms)" -gt 3000000 ] || fail "$http the time to live at the other node"
  status 201 $http -H 'X-Dstore-TTL-Ms: 200' -T "$work/small" "$kv/$key.short"
  for _ in $(seq 100); do
    [ "$(curl -sS $http -o /dev/null -w '%{http_code}' "$far/$key.short")" = 404 ] && break || sleep 0.1
  done
  status 404 $http "$far/$key.short"
  # Keys of any bytes.
  status 201 $http -T "$work/small" "$kv/$run$http%00%FF%2F%25"
  status 200 $http "$far/$run$http%00%ff/%25"
  same "$work/body" "$work/small" "$http a binary key"
  # Lists, batches, what is refused.
  status 200 $http "$kv?prefix=$run$http&limit=2"
  grep -q '"cursor":"' "$work/body" || fail "$http a page has no cursor"
  status 200 $http --json '{"steps":[{"op":"get","key":"none"},{"op":"set","namespace":"curl","key":"b'"$run$http"'","value":"x"}]}' "$node/v1/batch"
  equal "$(grep -o '"status":[0-9]*' "$work/body" | grep -v 'status":404' | sort -u)" '"status":201' "$http a batch"
  free='{"op":"set","namespace":"curl","key":"t'"$run$http"'","value":"x"}'
  occupied='{"op":"set","namespace":"curl","key":"b'"$run$http"'","value":"other"}'
  status 409 $http --json '{"atomic":true,"steps":['"$free,$occupied"']}' "$node/v1/batch"
  status 404 $http "$kv/t$run$http"
  status 200 $http --json '{"atomic":true,"steps":['"$free"']}' "$node/v1/batch"
  status 200 $http "$far/t$run$http"
  status 415 $http -d '{"steps":[]}' "$node/v1/batch"
  status 421 $http -H 'Host: evil.example' "$kv/x"
  status 403 $http -H 'Origin: http://evil.example' "$kv/x"
  status 405 $http -X OPTIONS "$kv/x"
  status 404 $http "$node/"
  status 200 $http "$node/openapi.json"
done

# A watch at the other node sees what happens at this one.
curl -sSN --max-time 20 "$other/v1/watch?namespace=curl&prefix=w$run" >"$work/events" &
watch=$!
for _ in $(seq 100); do grep -q '^id: ' "$work/events" && break; sleep 0.1; done
status 201 -T "$work/small" "$kv/w$run"
for _ in $(seq 100); do grep -q '^event: bound' "$work/events" && break; sleep 0.1; done
kill $watch 2>/dev/null || true
wait $watch 2>/dev/null || true
grep -q '^event: bound' "$work/events" || fail "the watch saw nothing"
checks=$((checks + 1))

echo "curl $(curl --version | head -1 | cut -d' ' -f2): $checks checks, HTTP/1.1 and HTTP/2"
