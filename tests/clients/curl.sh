#!/usr/bin/env bash
# Asks over the Unix socket SOCKET as somebody at a shell would.
#
#     tests/clients/curl.sh SOCKET
set -euo pipefail

socket=$1

ask() {
  curl --silent --show-error --max-time 20 --unix-socket "$socket" "$@"
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
# Two over one connection.
expect '{"ready":true}' "$(ask http://x/v2/health/live http://x/v2/health/ready)"
