#!/usr/bin/env bash
# Asks over the Unix socket SOCKET, and as the owner over ADMIN, as somebody at a shell would.
#
#     tests/clients/curl.sh SOCKET ADMIN
set -euo pipefail

socket=$1
admin=$2

ask() {
  curl --silent --show-error --max-time 20 --unix-socket "$socket" "$@"
}

own() {
  curl --silent --show-error --max-time 20 --unix-socket "$admin" "$@"
}

expect() {
  local want=$1 got=$2
  [[ $got == *"$want"* ]] || {
    echo "curl.sh: expected $want, got: $got" >&2
    exit 1
  }
}

expect '{"live":true}' "$(ask http://x/v2/health/live)"
expect '"name":"intent"' "$(ask http://x/v2/models)"
expect '"name":"moed"' "$(ask http://x/v2)"
expect '"ready":true' "$(ask http://x/v2/models/intent/ready)"
expect '"inputs":[{"name":"text"' "$(ask http://x/v2/models/intent)"
expect '"inference_count"' "$(ask http://x/v2/models/intent/stats)"
expect '# EOF' "$(ask http://x/metrics)"
# As it is typed first: -d says application/x-www-form-urlencoded.
expect '"intent":"HassTurnOn"' \
  "$(ask -d '{"text": "turn on the kitchen light"}' http://x/v2/models/intent/infer)"
expect '"intent":"HassTurnOn"' \
  "$(ask --json '{"text": "turn on the kitchen light"}' http://x/v2/models/intent/infer)"
expect 'HTTP/1.1 200' "$(ask --head http://x/v2/models/intent)"
expect '"code":"not_found"' "$(ask -d '{"text": "on"}' http://x/v2/models/intend/infer)"
expect 22 "$(ask --fail --output /dev/null http://x/v1 2>/dev/null || echo $?)"

# curl asks with `Expect: 100-continue` before it sends so much.
large=$(mktemp)
trap 'rm -f "$large"' EXIT
{
  printf '{"text": "'
  head -c 900000 /dev/zero | tr '\0' a
  printf '"}'
} >"$large"
expect aaaa "$(ask --header 'Expect: 100-continue' --data-binary "@$large" http://x/v2/models/intent/infer)"
head -c 9000000 /dev/zero | tr '\0' ' ' >"$large"
expect '"code":"too_large"' "$(ask --data-binary "@$large" http://x/v2/models/intent/infer)"
# Without a length: curl sends it in chunks.
expect '"intent":"HassTurnOn"' \
  "$(printf '{"text": "on"}' | ask --upload-file - --request POST http://x/v2/models/intent/infer)"
expect '"data":["8.000000:3"]' "$(ask --json '{"inputs": [{"name": "x", "shape": [1, 4],
  "datatype": "FP32", "data": [1, 2, 3, 4]}], "outputs": [{"name": "y",
  "parameters": {"classification": 1}}]}' http://x/v2/models/double/infer)"
# What only the owner may.
expect '"state":"READY"' "$(own --request POST http://x/v2/repository/index)"
for verb in load unload rollback; do
  expect '{}' "$(own --json '{}' "http://x/v2/repository/models/intent/$verb")"
  expect '"code":"not_found"' "$(ask --json '{}' "http://x/v2/repository/models/intent/$verb")"
done
# Two over one connection.
expect '{"ready":true}' "$(ask http://x/v2/health/live http://x/v2/health/ready)"
