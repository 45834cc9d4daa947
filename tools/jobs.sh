# Long work side by side, with a count of how far it is: sourced by build.sh.
# shellcheck shell=bash disable=SC2154

declare -A jobs=() # name: process
broken=()          # names of those that failed

# start_job NAME COMMAND...: runs it beside what follows. What it says goes to a log, and is shown if it fails.
start_job() {
  local name=$1
  shift
  mkdir -p "$logs"
  : >"$(job_log "$name")"
  # Cargo's progress bar is where the count comes from. A process group of its own, so that it can be ended whole.
  set -m
  (
    set +m
    export CARGO_TERM_PROGRESS_WHEN=always CARGO_TERM_PROGRESS_WIDTH=80
    "$@"
  ) >"$(job_log "$name")" 2>&1 </dev/null &
  set +m
  jobs[$name]=$!
  trap end_jobs EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM
}

job_log() { echo "$logs/${1//[^[:alnum:]_-]/-}.log"; }

# How many crates of how many are compiled, "87/143"; nothing before cargo knows.
crates() { tail -c 1000 "$(job_log "$1")" | tr '\r' '\n' | sed -n 's|.*\] \([0-9]\{1,\}/[0-9]\{1,\}\).*|\1|p' | tail -n 1; }

# finish_jobs: waits for all that run, and says now and then what is being waited for. Dies if one failed.
finish_jobs() {
  local name
  broken=()
  await_jobs "${!jobs[@]}"
  for name in "${broken[@]}"; do
    say "$name failed; the end of $(job_log "$name"):"
    tr '\r' '\n' <"$(job_log "$name")" | grep -v '^ *\(Building\|Downloading\) \[' | tail -n 60
  done >&2
  ((${#broken[@]} == 0)) || die "${broken[*]} failed: see the messages above"
}

# await_jobs NAME...: waits for these, and adds those that failed to `broken`.
await_jobs() {
  local name count line began=$SECONDS last=-60
  while :; do
    line=
    for name; do
      [[ ${jobs[$name]:-} ]] || continue
      kill -0 "${jobs[$name]}" 2>/dev/null || continue
      count=$(crates "$name")
      line+="${line:+; }$name${count:+: $count crates}"
    done
    [[ $line ]] || break
    line="waiting for $line ($(((SECONDS - began) / 60)) min $(((SECONDS - began) % 60)) s)"
    # On a terminal one line that changes, elsewhere a line now and then.
    if [[ -t 1 ]]; then
      printf '\r\e[K%s' "${line:0:${COLUMNS:-100}}"
    elif ((SECONDS - last >= 30)); then
      printf -- '-- %s\n' "$line"
      last=$SECONDS
    fi
    sleep 1
  done
  [[ ! -t 1 ]] || printf '\r\e[K'
  for name; do
    [[ ${jobs[$name]:-} ]] || continue
    wait "${jobs[$name]}" || broken+=("$name")
    unset "jobs[$name]"
  done
}

end_jobs() {
  local pid
  for pid in "${jobs[@]}"; do kill -- "-$pid" 2>/dev/null || true; done
}
