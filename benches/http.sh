#!/usr/bin/env bash
# HTTP GET of a value that a Local holds, beside nginx serving the same bytes from a file in memory: the same run, the
# same generator (wrk), in turn, medians of the rounds.
#
#   benches/http.sh [DSTORE_BINARY]      wants nginx and wrk; ROUNDS [3], SECONDS_EACH [4]
#
# Both servers have as many threads as there are cores, and whatever the machine gives them beside wrk.
set -euo pipefail

dstore=${1:-target/release/dstore}
rounds=${ROUNDS:-3} each=${SECONDS_EACH:-4}
work=$(mktemp -d /dev/shm/dstore-http.XXXXXX)
pids=()
cleanup() { kill "${pids[@]}" 2>/dev/null || true; sleep 0.5; rm -rf "$work"; }
trap cleanup EXIT

listens() { for _ in $(seq 100); do grep -q "$2" "$1" && return; sleep 0.1; done; echo "$1: nothing listens" >&2; exit 1; }
"$dstore" global --listen 127.0.0.1:0 --data "$work/data" --engine memory --min-free 1MiB >"$work/global" & pids+=($!)
listens "$work/global" listening
global=$(awk '{ print $NF }' "$work/global")
"$dstore" local --listen 127.0.0.1:0 --global "$global" --http 127.0.0.1:0 >"$work/local" & pids+=($!)
listens "$work/local" http:
ours=$(grep -o 'http://.*' "$work/local")/v1/kv/default

port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
mkdir -p "$work/files" "$work/nginx"
cat >"$work/nginx.conf" <<EOF
worker_processes auto;
daemon off;
pid $work/nginx/pid;
error_log $work/nginx/error;
events { worker_connections 1024; }
http {
  access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000000; open_file_cache max=100;
  default_type application/octet-stream;
  client_body_temp_path $work/nginx/a; proxy_temp_path $work/nginx/b; fastcgi_temp_path $work/nginx/c;
  uwsgi_temp_path $work/nginx/d; scgi_temp_path $work/nginx/e;
  server { listen 127.0.0.1:$port; root $work/files; }
}
EOF
nginx -c "$work/nginx.conf" -p "$work/nginx" 2>/dev/null & pids+=($!)
chmod 755 "$work" "$work/files"
for size in 100 65536; do
  head -c $size /dev/urandom >"$work/files/$size"
  chmod 644 "$work/files/$size"
  curl -sSf -o /dev/null -T "$work/files/$size" "$ours/$size"
  for _ in 1 2 3; do curl -sSf "$ours/$size" | cmp - "$work/files/$size"; done
  curl -sSf "http://127.0.0.1:$port/$size" | cmp - "$work/files/$size"
done

# rate URL CONNECTIONS: requests a second, and the 99th percentile.
rate() { wrk -t1 -c"$2" -d"${each}s" --latency "$1" | awk '/99%/ { p99 = $2 } /Requests\/sec/ { print $2, p99 }'; }
median() { sort -n | awk '{ all[NR] = $0 } END { print all[int((NR + 1) / 2)] }'; }
echo "$(nginx -v 2>&1), $(wrk -v 2>&1 | head -1 | cut -d' ' -f1,2), $("$dstore" --version), $(nproc) cores, load $(cut -d' ' -f1 /proc/loadavg)"
for size in 100 65536; do
  for connections in 1 64; do
    : >"$work/ours.rates"; : >"$work/nginx.rates"
    for _ in $(seq "$rounds"); do
      rate "http://127.0.0.1:$port/$size" $connections >>"$work/nginx.rates"
      rate "$ours/$size" $connections >>"$work/ours.rates"
    done
    theirs=$(median <"$work/nginx.rates") ours_rate=$(median <"$work/ours.rates")
    awk -v size=$size -v c=$connections -v n="$theirs" -v d="$ours_rate" 'BEGIN {
      split(n, a, " "); split(d, b, " ");
      printf "get/%d_B/%d_connections: nginx %.0f/s p99 %s, dstore %.0f/s p99 %s, ratio %.2f\n", size, c, a[1], a[2], b[1], b[2], b[1] / a[1] }'
  done
done
