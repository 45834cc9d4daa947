#!/usr/bin/env bash
# The one door to siglip-web: see `./build.sh help`.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
target=${CARGO_TARGET_DIR:-target}
[[ $target == /* ]] || target=$root/$target
tools=$target/tools
logs=$target/logs
node_bin=$root/tools/node_modules/.bin
debian_bin=/usr/bin # where Debian's rustc-web and cargo-web are
wasm=wasm32-unknown-unknown

usage() {
  cat <<'EOF'
usage: ./build.sh [VERB]

  (none)        install what is missing, then build the release wasm into www/lib/pkg/
  serve [PORT]  serves www/ on 127.0.0.1 (port 8080 unless given), as soon as the page can open; builds the rest meanwhile
  test          formatting, lints, documentation, native tests, wasm tests, the library and the page in three browsers,
                the npm package in bundlers, frameworks and extensions
  bench [ARGS]  the benchmark table of the README, with the peers in the same run
  package       the npm package, ready to publish, in dist/
  site OUT [--model DIR] [--dtype q8|q4] [--labels FILE]
                a complete static site in OUT, files below 95 MB; it opens with that model, with these labels alone
  help          this text

Needed beforehand: rustup (or cargo and rustc), Node.js 20.16 or newer with npm; for bench also Python 3.
Everything else is installed: cargo and npm tools under target/, tools/, tests/browser/ and tests/places/, Debian
packages with apt-get where this runs as root or sudo asks no password (otherwise the command to type is printed).

Environment:
  SIGLIP_WEB_STD    where the wasm32 standard library comes from: rustup, debian (built from the sources in
                    Debian's rust-web-src) or auto, the default: rustup's, else Debian's
  CARGO_TARGET_DIR  where everything built goes (default: target)
  CHROME_BIN, CHROMEDRIVER, FIREFOX_BIN, WEBKIT_DRIVER, MINIBROWSER
                    the browsers of the tests and their drivers (default: Debian's chromium, chromium-driver, firefox-esr,
                    webkit2gtk-driver)
EOF
}

say() { printf '\n== %s\n' "$*"; }
die() {
  printf 'build.sh: %s\n' "$*" >&2
  exit 1
}
have() { command -v "$1" >/dev/null 2>&1; }

# shellcheck source=tools/jobs.sh
source "$root/tools/jobs.sh"
# shellcheck source=tools/setup.sh
source "$root/tools/setup.sh"
# shellcheck source=tools/wasm.sh
source "$root/tools/wasm.sh"
# shellcheck source=tools/test.sh
source "$root/tools/test.sh"

# --- The verbs ------------------------------------------------------------------------------------------------------

serve() {
  local port=${1:-8080}
  [[ $# -le 1 && $port =~ ^(0|[1-9][0-9]{0,4})$ && $port -le 65535 ]] ||
    die "\"$*\" is no port: give a number up to 65535, as in ./build.sh serve 8080"
  need_node
  node "$root/tools/serve.mjs" --check "$port" || exit 1 # said before the long build
  build_first
  cd "$root"
  # The other modules are built while the page is open.
  exec node tools/serve.mjs www "$port" ./build.sh
}

bench() {
  [[ -x $root/benches/peers/run.sh ]] || die "benches/peers/run.sh is missing: restore it with git checkout benches"
  build
  need_browser
  cd "$root"
  exec benches/peers/run.sh "$@"
}

package() {
  build
  node "$root/tools/package.mjs" "$root" "$root/dist"
  (cd "$root/dist" && npm pack --dry-run) || die "npm would not pack dist/"
  echo "The package is in dist/. To publish it: cd dist && npm publish"
}

# A folder for any static host: the page, the library and, if one is given, a model of one's own in few bits.
site() {
  local out='' model='' dtype=q8 labels='' name convert
  while (($#)); do
    case $1 in
      --model | --dtype | --labels)
        (($# > 1)) || die "$1 needs a value"
        declare "${1#--}=$2"
        shift
        ;;
      -*) die "$1 is no option of site: see ./build.sh help" ;;
      *)
        [[ ! $out ]] || die "site takes one folder to write, not \"$out\" and \"$1\""
        out=$1
        ;;
    esac
    shift
  done
  [[ $out ]] || die "site needs a folder to write, as in ./build.sh site OUT"
  [[ $dtype == q8 || $dtype == q4 ]] || die "--dtype is \"$dtype\": it must be q8 or q4"
  [[ ! $labels || -f $labels ]] || die "there is no file $labels (--labels)"
  [[ ! $model || -f $model/config.json ]] || die "$model is no checkpoint: it has no config.json"
  need_node
  node "$root/tools/site.mjs" --check "$root/www" "$out" ${model:+"$model"} ${labels:+"$labels"} || exit 1 # said before the long build
  # Fixed labels are a conversion too.
  [[ ! $labels || $model ]] || model=$root/www/lib/models/demo
  build
  node "$root/tools/site.mjs" "$root/www" "$out" || exit 1
  if [[ $model ]]; then
    model=$(cd "$model" && pwd)
    name=${model##*/}
    convert=("$model" "$out/models/$name" --dtype "$dtype" --shard 95MB ${labels:+--labels "$labels"})
    say "Converting $name to $dtype"
    # With the profile and the feature that the tests have: nothing is compiled twice.
    cargo run --manifest-path "$root/Cargo.toml" --profile native --locked --quiet --features train --example convert -- "${convert[@]}" || die "$name could not be converted: see the message above"
    node "$root/tools/site.mjs" "$root/www" "$out" "models/$name" "$name" || exit 1
  fi
  echo "The site is in $out: copy it to any web server, or try it with: node tools/serve.mjs $out"
}

main() {
  local verb=${1:-build}
  (($# == 0)) || shift
  case $verb in
    serve) serve "$@" ;;
    bench) bench "$@" ;;
    site) site "$@" ;;
    build | test | package)
      (($# == 0)) || {
        printf 'build.sh: %s takes no arguments\n\n' "$verb" >&2
        usage >&2
        exit 2
      }
      case $verb in
        build) build && sizes ;;
        test) run_tests ;;
        package) package ;;
      esac
      ;;
    help | -h | --help) usage ;;
    *)
      printf 'build.sh: unknown verb "%s"\n\n' "$verb" >&2
      usage >&2
      exit 2
      ;;
  esac
}

# Sourced by tests/build.sh for its functions; run by everyone else.
if [[ ${BASH_SOURCE[0]} == "$0" ]]; then main "$@"; fi
