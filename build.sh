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
  serve [PORT]  the same, then serve www/ on 127.0.0.1 (port 8080 unless given)
  test          formatting, lints, native tests, wasm tests in headless Chromium, the page in a real browser
  bench [ARGS]  the benchmark table of the README, with the peers in the same run
  package       the npm package, ready to publish, in dist/
  help          this text

Needed beforehand: rustup (or cargo and rustc), Node.js 20 or newer with npm; for bench also Python 3.
Everything else is installed: cargo and npm tools under target/, tools/ and tests/browser/, Debian packages with
apt-get where this runs as root or sudo asks no password (otherwise the command to type is printed).

Environment:
  SIGLIP_WEB_STD    where the wasm32 standard library comes from: rustup, debian (built from the sources in
                    Debian's rust-web-src) or auto, the default: rustup's, else Debian's
  CARGO_TARGET_DIR  where everything built goes (default: target)
  CHROME_BIN, CHROMEDRIVER  the browser and driver of the tests (default: Debian's chromium, chromium-driver)
EOF
}

say() { printf '\n== %s\n' "$*"; }
die() {
  printf 'build.sh: %s\n' "$*" >&2
  exit 1
}
have() { command -v "$1" >/dev/null 2>&1; }

# --- What is installed when it is missing ---------------------------------------------------------------------------

has_package() { [[ $(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null) == installed ]]; }

# need_packages WHY PACKAGE...: Debian packages that must be there.
need_packages() {
  local why=$1 missing=() package
  shift
  for package; do has_package "$package" || missing+=("$package"); done
  ((${#missing[@]} == 0)) || install_packages "$why" "${missing[@]}"
}

# install_packages WHY PACKAGE...: the newest of them, where that needs no password.
install_packages() {
  local why=$1 as_root=()
  shift
  have apt-get || die "$* missing ($why), and this is no Debian: install what these Debian packages hold"
  local install=(apt-get install -y --no-install-recommends --no-remove "$@")
  if ((EUID != 0)); then
    as_root=(sudo -n)
    sudo -n true 2>/dev/null || die "Debian packages are missing ($why) and need root; type: sudo ${install[*]}"
  fi
  say "Installing $* ($why)"
  export DEBIAN_FRONTEND=noninteractive
  # On a fresh machine the lists are empty or old. A single source that cannot be reached need not matter.
  "${as_root[@]}" apt-get update </dev/null || true
  "${as_root[@]}" "${install[@]}" </dev/null ||
    die "apt-get could not install $* ($why): see its message above, then type: sudo ${install[*]}"
}

need_rust() {
  { have cargo && have rustc; } || die "Rust is missing: install rustup as https://rustup.rs says, then open a new shell"
  have cc || need_packages "the C compiler, which links Rust programs" build-essential
}

need_node() {
  have node || die "Node.js is missing: install version 20 or newer from https://nodejs.org or with: sudo apt-get install nodejs npm"
  local version
  version=$(node -p process.versions.node)
  ((${version%%.*} >= 20)) || die "Node.js $version is too old: version 20 or newer is needed, see https://nodejs.org"
  have npm || die "npm is missing: install it with Node.js from https://nodejs.org or with: sudo apt-get install npm"
  need_npm_tools tools
}

# need_npm_tools FOLDER: what the package-lock.json in that folder names.
need_npm_tools() {
  local folder=$root/$1 stamp=$root/$1/node_modules/.siglip-web wanted
  wanted=$(sha256sum <"$folder/package-lock.json")
  [[ -f $stamp && $(<"$stamp") == "$wanted" ]] && return
  say "Installing the npm tools of $1/package-lock.json"
  (cd "$folder" && npm ci --ignore-scripts --no-audit --no-fund) ||
    die "npm could not install the tools: check the network, or npm's registry setting (npm config get registry)"
  echo "$wanted" >"$stamp"
}

rustup_has_std() {
  local libs
  libs=$(rustc --print target-libdir --target $wasm 2>/dev/null) && compgen -G "$libs/libstd-*.rlib" >/dev/null
}

debian_std=(rustc-web cargo-web rust-web-src)
debian_has_std() {
  local package oldest
  for package in "${debian_std[@]}"; do has_package "$package" || return; done
  oldest=$(awk -F '"' '/^rust-version/ {print $2}' "$root/Cargo.toml")
  # "rustc 1.96.0 (…)"
  sort -CV <<<"$oldest"$'\n'"$("$debian_bin/rustc" --version | cut -d ' ' -f 2)"
}

# Sets `std`, the toolchain that builds wasm.
need_wasm_std() {
  local choice=${SIGLIP_WEB_STD:-auto} note=$target/.wasm-std
  case $choice in
    auto)
      # The note saves asking rustup again for what it could not fetch last time.
      if rustup_has_std; then
        choice=rustup
      elif [[ -f $note && $(<"$note") == debian ]] && debian_has_std; then
        choice=debian
      elif fetch_std; then
        choice=rustup
      else
        echo "rustup cannot fetch the wasm32 standard library here: building it from Debian's sources"
        choice=debian
      fi
      ;;
    rustup)
      rustup_has_std || fetch_std ||
        die "rustup could not fetch the wasm32 standard library: type rustup target add $wasm, or set SIGLIP_WEB_STD=debian"
      ;;
    debian) ;;
    *) die "SIGLIP_WEB_STD is \"$choice\": it must be auto, rustup or debian" ;;
  esac
  if [[ $choice == debian ]]; then
    debian_has_std || install_packages "the wasm32 standard library in source" "${debian_std[@]}"
    debian_has_std || die "Debian's $("$debian_bin/rustc" --version) is older than Cargo.toml's rust-version:" \
      "type sudo apt-get update, then sudo apt-get install ${debian_std[*]}, or use rustup's (SIGLIP_WEB_STD=rustup)"
    rust_lld >/dev/null || die "rust-lld is missing from $(rustc --print sysroot): install Rust through https://rustup.rs"
  fi
  std=$choice
  mkdir -p "$target"
  echo "$std" >"$note"
}

fetch_std() {
  have rustup || return
  say "Fetching the wasm32 standard library"
  timeout 300 rustup target add $wasm </dev/null && rustup_has_std
}

# Sets `threads_std`, the toolchain that builds the module with threads. Its memory is shared, which no standard library is
# made for: it is built from its sources, whichever toolchain they come with.
need_threads_std() {
  threads_std=$std
  [[ $std == rustup ]] || return 0
  rustup_has_sources || fetch_sources || {
    echo "rustup cannot fetch the standard library's sources here: taking Debian's"
    debian_has_std || install_packages "the standard library in source, for threads" "${debian_std[@]}"
    debian_has_std || die "Debian's $("$debian_bin/rustc" --version) is older than Cargo.toml's rust-version:" \
      "type rustup component add rust-src"
    threads_std=debian
  }
}

rustup_has_sources() { [[ -f $(rustc --print sysroot)/lib/rustlib/src/rust/library/std/Cargo.toml ]]; }

fetch_sources() {
  have rustup || return
  say "Fetching the standard library's sources"
  timeout 300 rustup component add rust-src </dev/null && rustup_has_sources
}

rust_lld() {
  local sysroot found
  sysroot=$(rustc --print sysroot)
  found=$(compgen -G "$sysroot/lib/rustlib/*/bin/rust-lld") && head -n 1 <<<"$found"
}

locked_version() { awk -v name="\"$1\"" '$1 == "name" {found = $3 == name} found && $1 == "version" {gsub(/"/, "", $3); print $3; exit}' "$root/Cargo.lock"; }

# wasm-bindgen works only with modules of exactly its own version.
need_wasm_bindgen() {
  local version folder
  version=$(locked_version wasm-bindgen)
  [[ $version ]] || die "Cargo.lock names no wasm-bindgen: restore it with git checkout Cargo.lock"
  for folder in "$tools/bin" "$(dirname "$(command -v wasm-bindgen || echo /)")"; do
    if [[ $("$folder/wasm-bindgen" --version 2>/dev/null) == "wasm-bindgen $version"* && -x $folder/wasm-bindgen-test-runner ]]; then
      bindgen=$folder
      return
    fi
  done
  say "Installing wasm-bindgen-cli $version"
  local install=(cargo install wasm-bindgen-cli --version "=$version" --root "$tools" --force)
  # Its locked dependencies where they can be had; a mirror may lag behind them. Lightly optimised: built sooner, fast enough.
  env -u RUSTFLAGS CARGO_TARGET_DIR="$target/tools-build" CARGO_PROFILE_RELEASE_OPT_LEVEL=1 "${install[@]}" --locked ||
    env -u RUSTFLAGS CARGO_TARGET_DIR="$target/tools-build" CARGO_PROFILE_RELEASE_OPT_LEVEL=1 "${install[@]}" ||
    die "wasm-bindgen-cli could not be installed: see cargo's message above, then type: ${install[*]}"
  rm -rf "$target/tools-build"
  bindgen=$tools/bin
}

need_browser() {
  need_npm_tools tests/browser
  export CHROME_BIN=${CHROME_BIN:-/usr/bin/chromium} CHROMEDRIVER=${CHROMEDRIVER:-/usr/bin/chromedriver}
  [[ -x $CHROME_BIN ]] || need_packages "the browser of the tests" chromium
  [[ -x $CHROMEDRIVER ]] || need_packages "the browser's driver for the wasm tests" chromium-driver
  [[ -x $CHROME_BIN && -x $CHROMEDRIVER ]] ||
    die "no browser at $CHROME_BIN or no driver at $CHROMEDRIVER: set CHROME_BIN and CHROMEDRIVER to them"
}

# The native GPU tests run on Mesa's software Vulkan, the same on every machine.
need_vulkan() {
  local icd
  compgen -G "/usr/share/vulkan/icd.d/lvp_icd*.json" >/dev/null || need_packages "the Vulkan device of the native tests" mesa-vulkan-drivers
  ldconfig -p 2>/dev/null | grep -q libvulkan.so.1 || need_packages "the Vulkan loader of the native tests" libvulkan1
  icd=$(compgen -G "/usr/share/vulkan/icd.d/lvp_icd*.json" | head -n 1)
  export VK_DRIVER_FILES=$icd VK_ICD_FILENAMES=$icd
}

# --- The wasm -------------------------------------------------------------------------------------------------------

# Cargo with the toolchain that has a wasm32 standard library. RUSTFLAGS would replace those of .cargo/config.toml.
wasm_cargo() {
  # "test" always, as cargo adds it for tests and would then build every dependency again.
  if [[ $std == rustup ]]; then cargo_of rustup "" "$target" "$@"; else cargo_of debian std,panic_abort,test "$target" "$@"; fi
}

# Cargo for the module with threads: everything in it is compiled for a shared memory, in a folder of its own.
threads_cargo() {
  cargo_of "$threads_std" std,panic_abort "$target/threads" --config "target.$wasm.rustflags=['-C', 'target-feature=+atomics,+bulk-memory']" "$@"
}

# cargo_of TOOLCHAIN CRATES FOLDER ARGUMENT...: CRATES of the standard library are built from its sources.
cargo_of() {
  local toolchain=$1 crates=$2 folder=$3
  shift 3
  local settings=(-u RUSTFLAGS -u CARGO_ENCODED_RUSTFLAGS "CARGO_TARGET_DIR=$folder") cargo=cargo
  if [[ $crates ]]; then settings+=(RUSTC_BOOTSTRAP=1 "CARGO_UNSTABLE_BUILD_STD=$crates"); fi
  if [[ $toolchain == debian ]]; then
    settings+=("RUSTC=$debian_bin/rustc" "RUSTDOC=$debian_bin/rustdoc" "CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER=$(rust_lld)")
    cargo=$debian_bin/cargo
  fi
  env "${settings[@]}" "$cargo" "$@"
}

rustc_version() {
  if [[ $1 == rustup ]]; then rustc -vV; else "$debian_bin/rustc" -vV; fi
}

checksum() { sha256sum "$@" | cut -d ' ' -f 1; }

# The features that a module may use: those of rustc's baseline, and SIMD128. Nothing else is assumed of a browser.
# low-memory-unused: nothing lies in the first KiB (there the stack would end), so that additions of small constants can be a part of
# loads and stores.
wasm_opt=(-O2 --low-memory-unused --enable-simd --enable-bulk-memory --enable-bulk-memory-opt --enable-call-indirect-overlong
  --enable-nontrapping-float-to-int --enable-sign-ext --enable-mutable-globals --enable-reference-types
  --enable-multivalue --strip-debug --strip-producers --strip-target-features)

# build_wasm NAME [FEATURES [EXTRA...]]: www/lib/pkg/NAME.js and www/lib/pkg/NAME_bg.wasm, using what only some browsers have: relaxed-simd in this
# crate's code, threads in everything. Skips each half whose inputs are those of last time.
build_wasm() {
  local name=$1 features=${2:-} extra toolchain=$std cargo=wasm_cargo folder=$target out=$root/www/lib/pkg sources finish symbol
  # Instructions in the order of the source: the matrix products are written so that what they hold fits a browser's vector
  # registers, and the compiler, which thinks there is any number of them, would move loads ahead.
  local work=$target/modules/$name flags=(-C lto=fat -C llvm-args=-pre-RA-sched=source) opt=("${wasm_opt[@]}")
  shift $(($# < 2 ? $# : 2))
  for extra; do
    opt+=("--enable-$extra")
    case $extra in
      relaxed-simd) flags+=(-C target-feature=+relaxed-simd) ;;
      threads)
        toolchain=$threads_std cargo=threads_cargo folder=$target/threads
        # 4 GiB, as much as memories can have; wasm-bindgen starts threads by the symbols.
        flags+=(-C link-arg=--shared-memory -C link-arg=--import-memory -C link-arg=--max-memory=4294967296)
        for symbol in __heap_base __wasm_init_tls __tls_size __tls_align __tls_base; do flags+=(-C "link-arg=--export=$symbol"); done
        ;;
    esac
  done
  local raw=$work/$name.wasm linked=$folder/$wasm/web/siglip_web.wasm
  mkdir -p "$work" "$out"
  sources=$(
    cd "$root"
    {
      find Cargo.toml Cargo.lock .cargo src -type f -print0 | sort -z | xargs -0 sha256sum
      rustc_version "$toolchain"
      echo "$toolchain $features ${flags[*]}"
    } | checksum
  )
  if [[ ! -f $raw || ! -f $work/sources || $(<"$work/sources") != "$sources" ]]; then
    say "Compiling $name"
    # Both modules have the same file name, and cargo does not see that the other took its place.
    rm -f "$linked" "$folder/$wasm/web/deps/siglip_web.wasm" "$work/sources"
    (cd "$root" && $cargo rustc --locked --profile web --target $wasm --lib --crate-type cdylib \
      --no-default-features --features "$features" -- "${flags[@]}") || die "$name did not compile: see the messages above"
    # See `construct` in src/device.rs.
    ! grep -aq command_export "$linked" || die "$name would run its constructors at every call from JavaScript"
    cp "$linked" "$raw"
    echo "$sources" >"$work/sources"
  fi

  finish="$({
    checksum "$raw" "$root/tools/package-lock.json"
    "$bindgen/wasm-bindgen" --version
    echo "${opt[*]}"
  } | checksum)"
  if [[ -f $work/finish && $(<"$work/finish") == "$finish $(checksum "$out/$name.js" "$out/${name}_bg.wasm" 2>/dev/null)" ]]; then
    return
  fi
  say "Binding and optimising $name"
  "$bindgen/wasm-bindgen" --target web --no-typescript --remove-name-section --remove-producers-section \
    --out-dir "$work" --out-name "$name" "$raw" || die "wasm-bindgen failed on $raw"
  "$node_bin/wasm-opt" "${opt[@]}" "$work/${name}_bg.wasm" -o "$work/optimised.wasm" || die "wasm-opt failed on $work/${name}_bg.wasm"
  mv "$work/optimised.wasm" "$out/${name}_bg.wasm"
  mv "$work/$name.js" "$out/$name.js"
  echo "$finish $(checksum "$out/$name.js" "$out/${name}_bg.wasm")" >"$work/finish"
}

sizes() {
  local file
  for file in "$root"/www/lib/pkg/*.wasm; do
    printf '%s: %.2f MB, gzip %.2f MB\n' "${file#"$root/"}" "$(wc -c <"$file")e-6" "$(gzip -9c "$file" | wc -c)e-6"
  done
}

build() {
  need_rust
  need_node
  need_wasm_std
  need_threads_std
  need_wasm_bindgen
  build_wasm siglip_web_cpu
  build_wasm siglip_web_cpu_relaxed "" relaxed-simd
  build_wasm siglip_web_cpu_threads "" relaxed-simd threads
  build_wasm siglip_web_webgpu webgpu
}

# --- The verbs ------------------------------------------------------------------------------------------------------

serve() {
  local port=${1:-8080}
  [[ $# -le 1 && $port =~ ^(0|[1-9][0-9]{0,4})$ && $port -le 65535 ]] ||
    die "\"$*\" is no port: give a number up to 65535, as in ./build.sh serve 8080"
  need_node
  node "$root/tools/serve.mjs" --check "$port" || exit 1 # said before the long build
  build
  cd "$root"
  exec node tools/serve.mjs www "$port"
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

# step TITLE COMMAND...: runs one part of the tests, and counts what it says about passed and failed ones.
passed=0 failed=0 skipped=0 failures=()
step() {
  local title=$1 began=$SECONDS status=0 ok bad skip
  local log="$logs/${title//[^[:alnum:]]/-}.log"
  shift
  say "$title"
  # No "||" here: bash would ignore errors inside the command.
  set +e
  (
    set -e
    "$@"
  ) 2>&1 </dev/null | tee "$log"
  status=$?
  set -e
  read -r ok bad skip < <(count "$log")
  if ((status == 0 && bad > 0)); then status=1; fi
  # A step that counts nothing, or broke before its tests could say so, is itself what passed or failed.
  if ((status == 0 && ok == 0)); then ok=1; fi
  if ((status != 0 && bad == 0)); then bad=1; fi
  ((passed += ok, failed += bad, skipped += skip)) || true
  if ((status != 0)); then failures+=("$title"); fi
  printf -- '-- %s: %s in %d s\n' "$title" "$( ((status == 0)) && echo passed || echo FAILED)" $((SECONDS - began))
}

# Sums what libtest, wasm-bindgen-test, node:test and tests/build.sh print: "passed failed skipped".
count() {
  sed 's/\x1b\[[0-9;]*m//g' "$1" | awk '
    /^test result: / {
      for (i = 2; i <= NF; i++) {
        if ($i ~ /^passed/) ok += $(i - 1)
        if ($i ~ /^failed/) bad += $(i - 1)
        if ($i ~ /^ignored/) skip += $(i - 1)
      }
    }
    $1 == "ℹ" && $2 == "pass" { ok += $3 }
    $1 == "ℹ" && ($2 == "fail" || $2 == "cancelled") { bad += $3 }
    $1 == "ℹ" && ($2 == "skipped" || $2 == "todo") { skip += $3 }
    END { print ok + 0, bad + 0, skip + 0 }'
}

check_format() { cargo fmt --all --check; }
check_lints() { cargo clippy --release --locked --all-targets -- -D warnings; }
# src/web.rs exists only on wasm32. Debian's toolchain has no clippy; there rustc's own warnings must do, as errors.
check_wasm_lints() {
  local command=(rustc)
  [[ $std == debian ]] || command=(clippy)
  wasm_cargo "${command[@]}" --locked --profile web --target $wasm --lib --no-default-features -- -D warnings
}
native_tests() { cargo test --release --locked; }
wasm_tests() {
  local capabilities=$target/webdriver.json
  node -e '
    const fs = require("node:fs"), capabilities = JSON.parse(fs.readFileSync("tests/webdriver.json"));
    capabilities["goog:chromeOptions"].binary = process.env.CHROME_BIN;
    fs.writeFileSync(process.argv[1], JSON.stringify(capabilities));' "$capabilities"
  CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUNNER=$bindgen/wasm-bindgen-test-runner WASM_BINDGEN_TEST_ONLY_WEB=1 \
    WASM_BINDGEN_TEST_WEBDRIVER_JSON=$capabilities WASM_BINDGEN_TEST_TIMEOUT=1200 WASM_BINDGEN_TEST_DRIVER_TIMEOUT=60 \
    wasm_cargo test --locked --profile web --target $wasm --test web --no-default-features --features webgpu
}
check_types() { "$node_bin/tsc" --project tests/browser; }
script_tests() { tests/build.sh; }
browser_tests() {
  compgen -G "tests/browser/*.test.mjs" >/dev/null || die "tests/browser holds no *.test.mjs: restore it with git checkout tests"
  # One file at a time: each drives a browser that wants every core.
  node --test --test-concurrency=1 --test-reporter=spec tests/browser/*.test.mjs
}

run_tests() {
  local began=$SECONDS
  cd "$root"
  mkdir -p "$logs"
  need_rust
  need_node
  have rustfmt && have cargo-clippy || {
    have rustup && rustup component add rustfmt clippy
  } || die "rustfmt or clippy is missing: type rustup component add rustfmt clippy"
  need_vulkan
  need_browser
  need_wasm_std
  need_wasm_bindgen

  step "Formatting" check_format
  step "Lints" check_lints
  step "Lints of the wasm side" check_wasm_lints
  step "Native tests" native_tests
  step "Wasm tests in Chromium" wasm_tests
  step "Types" check_types
  # Before build.sh's own tests, which serve and pack what is built.
  step "Release wasm" build
  step "Tests of build.sh" script_tests
  step "The page in Chromium" browser_tests

  say "Summary after $(((SECONDS - began) / 60)) min $(((SECONDS - began) % 60)) s"
  ((${#failures[@]} == 0)) || printf 'failed: %s\n' "${failures[@]}"
  ((skipped == 0)) || printf '%d skipped\n' "$skipped"
  printf '%d passed, %d failed\n' "$passed" "$failed"
  ((failed == 0))
}

main() {
  local verb=${1:-build}
  (($# == 0)) || shift
  case $verb in
    serve) serve "$@" ;;
    bench) bench "$@" ;;
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
