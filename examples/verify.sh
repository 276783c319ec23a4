#!/bin/sh
# Checks from outside that the gateway before a hub keeps connections on their pod: negotiates, looks whether the ids are sealed,
# and connects. Needs a POSIX shell and curl.
set -u

usage() {
    cat <<'END'
Usage: verify.sh HUB [--metrics WHERE] [--connections NUMBER] [-- CURL-OPTION...]

HUB          the hub's URL at the gateway, such as http://localhost:8080/chat
--metrics    where the filter's metrics are: a URL such as http://localhost:9902/stats/prometheus, or a command that prints them
--connections  how many connections to try, 10 by default
CURL-OPTION  what requests need besides, such as --insecure or --header "authorization: Bearer ..."

The exit status is 0 if all is well, 1 if something is wrong, and 2 if the arguments are.
END
}

fail() {
    echo "FAILED: $1" >&2
    shift
    for line in "$@"; do echo "        $line" >&2; done
    exit 1
}

wrong_arguments() {
    echo "$1" >&2
    usage >&2
    exit 2
}

hub= metrics= connections=10
while [ $# -gt 0 ]; do
    case $1 in
        --help) usage; exit 0 ;;
        --metrics | --connections)
            [ $# -gt 1 ] || wrong_arguments "$1 needs a value."
            if [ "$1" = --metrics ]; then metrics=$2; else connections=$2; fi
            shift 2
            ;;
        --) shift; break ;;
        -*) wrong_arguments "There is no option $1." ;;
        *)
            [ -z "$hub" ] || wrong_arguments "There can be one HUB only, and $1 is another one."
            hub=${1%/}
            shift
            ;;
    esac
done
case $hub in
    http://* | https://*) ;;
    *) wrong_arguments "HUB must be a URL." ;;
esac
case $connections in
    *[!0-9]* | '' | 0) wrong_arguments "--connections must be a number above 0." ;;
esac
command -v curl >/dev/null || fail "curl is missing."

work=$(mktemp -d) || fail "There is no place for temporary files."
socket=
trap 'test -z "$socket" || kill "$socket" 2>/dev/null; rm -rf "$work"' EXIT
trap 'exit 1' INT TERM

# Prints the status of the answer, 000 if there is none; its body is then in "$work/body", its headers are in "$work/headers". No
# cookies are kept.
ask() {
    : >"$work/body"
    curl --silent --show-error --max-time 60 --output "$work/body" --dump-header "$work/headers" --write-out '%{http_code}' \
        "$@" 2>"$work/error"
}

# Of the JSON of a negotiate's answer, the text of a field.
field() {
    sed -n "s/.*\"$1\" *: *\"\\([^\"]*\\)\".*/\\1/p" "$work/body"
}

# The id that requests of the connection carry, as it stands in a query. Protocol version 0 knows one id only.
token() {
    id=$(field connectionToken)
    echo "${id:-$(field connectionId)}" | sed 's/+/%2B/g; s/=/%3D/g; s|/|%2F|g'
}

# Opens a WebSocket and prints the status of the answer: 101 once it is open.
websocket() {
    : >"$work/upgrade"
    curl --silent --http1.1 --no-buffer --max-time 60 --output /dev/null --dump-header "$work/upgrade" \
        --header 'connection: Upgrade' --header 'upgrade: websocket' --header 'sec-websocket-version: 13' \
        --header 'sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==' "$@" 2>/dev/null &
    socket=$!
    # A WebSocket that is open stays so: curl ends by itself only when it failed.
    while ! grep -q '^HTTP/' "$work/upgrade" && kill -0 "$socket" 2>/dev/null; do sleep 1; done
    kill "$socket" 2>/dev/null
    wait "$socket" 2>/dev/null
    socket=
    sed -n 's/^HTTP[^ ]* \([0-9]*\).*/\1/p' "$work/upgrade" | tail -n 1
}

# One connection by long polling: the pod with the id answers 200 to each of these, any other one 404. Prints the last status.
long_poll() {
    status=$(ask "$@")
    [ "$status" = 200 ] || { echo "$status"; return; }
    printf '{"protocol":"json","version":1}\036' >"$work/handshake"
    printf '{"type":6}\036' >"$work/ping"
    for body in "$work/handshake" "$work/ping" "$work/ping"; do
        status=$(ask --request POST --header 'content-type: text/plain' --data-binary @"$body" "$@")
        [ "$status" = 200 ] || { echo "$status"; return; }
    done
    status=$(ask "$@")
    ask --request DELETE "$@" >/dev/null
    echo "$status"
}

fail_websocket() {
    fail "A WebSocket is answered ${1:-nothing}, not 101." \
        "Something on the way does not pass upgrades on: the gateway's upgrade_configs, or a proxy before it."
}

number=0 lost=0 sealed=0
while [ "$number" -lt "$connections" ]; do
    number=$((number + 1))
    status=$(ask --request POST --data '' "$@" "$hub/negotiate?negotiateVersion=1")
    case $status in
        200) ;;
        000) fail "$hub cannot be reached: $(cat "$work/error")" ;;
        401) fail "The hub wants to know who you are (401)." 'Give a token: verify.sh HUB -- --header "authorization: Bearer ..."' ;;
        403) fail "The gateway answers 403." \
            "In Istio: the image of the filter cannot be fetched, or something denies the request." ;;
        404) fail "There is no hub at $hub (404)." "Is the path right, and does a route of the gateway lead there?" ;;
        30?) fail "The gateway sends the negotiate elsewhere ($status): give the URL that it ends up at." ;;
        429) fail "The gateway answers 429: a limit of the filter or of another one." ;;
        500) fail "The gateway or the hub answers 500." \
            "If every request is answered so, the filter was refused: its key or its settings. The gateway's log says why." ;;
        503) fail "The gateway answers 503." "No pod is ready, or the filter has stopped: the gateway's log says which." ;;
        *) fail "A negotiate is answered $status, not 200." ;;
    esac
    token=$(token)
    if [ -z "$token" ]; then
        error=$(field error)
        [ -z "$error" ] || fail "The hub or the filter refuses the negotiate: $error"
        [ -z "$(field url)" ] || fail "The hub sends clients to another service, such as Azure SignalR: there is nothing to check."
        fail "The answer at $hub/negotiate is not that of a SignalR hub of ASP.NET Core."
    fi
    ! grep -qi '^x-signalr-pin:' "$work/headers" || fail "The gateway shows the pods' addresses in the header x-signalr-pin." \
        "Envoy steers, but the filter does not run: it is missing, or it stands after stateful_session."
    case $token in
        *.*) sealed=$((sealed + 1)) ;;
        *) fail "The id of connection $number is not sealed ($sealed before it were): the filter does not run on this gateway, or on" \
            "some of its pods, or its settings say so (connection_token, hubs)." ;;
    esac
    if grep -q '"LongPolling"' "$work/body"; then
        status=$(long_poll "$@" "$hub?id=$token")
        case $status in
            200 | 404) ;;
            *) fail "A request of connection $number is answered $status, not 200." ;;
        esac
    else
        status=$(websocket "$@" "$hub?id=$token")
        case $status in
            101 | 404) ;;
            *) fail_websocket "$status" ;;
        esac
    fi
    [ "$status" != 404 ] || lost=$((lost + 1))
done
echo "ok: all $sealed ids are sealed."
[ "$lost" = 0 ] || fail "$lost of $connections connections missed their pod (404), though their ids are sealed." \
    "Envoy does not send requests where the filter points: stateful_session is missing or stands before the filter," \
    "a route chooses another cluster for each request, or a pod is several servers."
echo "ok: $connections connections stayed on their pods."

status=$(ask --request POST --data '' "$@" "$hub/negotiate?negotiateVersion=1")
if grep -q '"WebSockets"' "$work/body"; then
    status=$(websocket "$@" "$hub?id=$(token)")
    [ "$status" = 101 ] || fail_websocket "$status"
    echo "ok: a WebSocket opens."
fi

[ -n "$metrics" ] || exit 0
case $metrics in
    http://* | https://*) curl --silent --show-error --max-time 60 "$metrics" >"$work/metrics" ;;
    *) sh -c "$metrics" >"$work/metrics" ;;
esac || fail "The metrics cannot be read from: $metrics"
grep -q 'signalr_gateway_negotiations_total' "$work/metrics" ||
    fail "There are no metrics of the filter at: $metrics" "With several gateway pods, this one may have had no negotiate yet."
grep -q '^signalr_gateway_negotiations_total{.*signalr_result="sealed"' "$work/metrics" ||
    fail "The labels stand in the metrics' names." \
        "The gateway's Envoy lacks the tags: stats_tags in plain Envoy, extraStatTags in Istio. It reads them when it starts."
echo "ok: metrics have their labels."
