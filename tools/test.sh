# Everything that must hold: sourced by build.sh, after wasm.sh.
# shellcheck shell=bash disable=SC2154

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

# Sums what libtest, wasm-bindgen-test, node:test and tests/build.sh print, and this file's own "skipped: …": "passed failed skipped".
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
    /^skipped: / { skip += 1 }
    END { print ok + 0, bad + 0, skip + 0 }'
}

check_format() { cargo fmt --all --check; }
check_lints() {
  cargo clippy --profile native --locked --all-targets --features train -- -D warnings
  check_features
}
# The library has its dependencies as it asks for them itself, whatever dev-dependencies switch on: other crates build it alone. Compiling it alone
# would say the same, and compile all dependencies once more.
check_features() {
  local features=(cargo tree --locked --features train --depth 1 --prefix none --format '{p} {f}') missing
  missing=$(comm -23 <("${features[@]}" --edges normal | sort) <("${features[@]}" --edges normal,dev | sort))
  [[ ! $missing ]] || die "only dev-dependencies have features of these switched on that the library may be using: name them in Cargo.toml's [dependencies] or not at all:"$'\n'"$missing"
}
# src/web.rs exists only on wasm32. Debian's toolchain has no clippy; there rustc's own warnings must do, as errors.
check_wasm_lints() {
  local command=(rustc)
  [[ $std == debian ]] || command=(clippy)
  wasm_cargo "${command[@]}" --locked --profile web --target $wasm --lib --no-default-features -- -D warnings
}
# Every link of the documentation leads somewhere, in the browser's half too.
# The example is there for its dependencies alone: they are the tests' then, compiled already.
check_docs() { RUSTDOCFLAGS="-D warnings" cargo doc --profile native --locked --no-deps --lib --example convert --features train; }
check_wasm_docs() {
  RUSTDOCFLAGS="-D warnings" wasm_cargo doc --locked --profile web --target "$wasm" --no-deps --lib --no-default-features
}
# What is linked in may be, and has no known hole. Both lists of holes are on servers that not every machine reaches.
check_dependencies() {
  local folder report
  if have cargo-deny; then
    cargo deny --locked check licenses bans sources
    report=$(timeout 120 cargo deny --locked check advisories 2>&1) ||
      if [[ $report == *"failed to fetch advisory database"* ]]; then
        echo "skipped: advisories about crates, because their list can't be fetched here"
      else
        printf '%s\n' "$report"
        false
      fi
  else
    echo "skipped: licences of crates and advisories, because cargo-deny is missing: cargo install cargo-deny takes longer than these checks are worth at every run"
  fi
  for folder in tools tests/browser tests/places; do
    report=$(cd "$folder" && npm audit --audit-level=high 2>&1) ||
      if [[ $report == *"audit endpoint returned an error"* || $report == *"network"* ]]; then
        echo "skipped: advisories about $folder/package-lock.json, because the registry doesn't answer npm audit"
      else
        printf '%s\n' "$report"
        false
      fi
  done
}
native_tests() { cargo test --profile native --locked --features train "$@"; }
wasm_tests() {
  local capabilities=$target/webdriver.json
  node -e '
    const fs = require("node:fs"), capabilities = JSON.parse(fs.readFileSync("webdriver.json"));
    capabilities["goog:chromeOptions"].binary = process.env.CHROME_BIN;
    fs.writeFileSync(process.argv[1], JSON.stringify(capabilities));' "$capabilities"
  CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUNNER=$bindgen/wasm-bindgen-test-runner WASM_BINDGEN_TEST_ONLY_WEB=1 \
    WASM_BINDGEN_TEST_WEBDRIVER_JSON=$capabilities WASM_BINDGEN_TEST_TIMEOUT=1200 WASM_BINDGEN_TEST_DRIVER_TIMEOUT=60 \
    wasm_cargo test --locked --profile web --target $wasm --test web --no-default-features --features webgpu
}
# What users of Rust wasm crates type first. The same tests as above by another runner, so only where it is installed.
wasm_pack() {
  local pkg=$target/wasm-pack
  if ! have wasm-pack; then
    echo "skipped: wasm-pack test and wasm-pack build, because wasm-pack is missing: cargo install wasm-pack takes three minutes on two cores"
    return
  fi
  if [[ $std != rustup ]]; then
    echo "skipped: wasm-pack test and wasm-pack build, because wasm-pack takes rustup's standard library alone"
    return
  fi
  export PATH=$bindgen:$PATH CARGO_TARGET_DIR=$target WASM_BINDGEN_TEST_TIMEOUT=1200
  unset RUSTFLAGS
  wasm-pack test --mode no-install --headless --chrome --chromedriver "$CHROMEDRIVER" -- --locked --profile web --test web
  rm -rf "$pkg"
  wasm-pack build src/web/package --mode no-install --target web --profile web --out-dir "$pkg" -- --locked
  node --input-type=module -e '
    import { readFile } from "node:fs/promises";
    const folder = `${process.argv[1]}/`;
    const { main } = JSON.parse(await readFile(`${folder}package.json`));
    const { default: start, Engine } = await import(`${folder}${main}`);
    await start({ module_or_path: await readFile(`${folder}siglip_web_module_bg.wasm`) });
    if (typeof Engine.load !== "function") throw new Error("the package has no Engine.load");' "$pkg"
}
check_types() {
  "$node_bin/tsc" --project tests/browser
  "$node_bin/tsc" --project tests/browser/tsconfig.worker.json
}
script_tests() { tests/build.sh; }
# Of Chromium's tests, what docs/browsers.md has no rows for and what fills the time when the other browsers are done.
last=(tests/browser/faults.test.mjs)
browser_tests() {
  local file files=()
  for file in tests/browser/*.test.mjs; do [[ " ${last[*]} " == *" $file "* ]] || files+=("$file"); done
  [[ -f ${files[0]} ]] || die "tests/browser holds no *.test.mjs: restore it with git checkout tests"
  tests_in chromium "${files[@]}"
}
last_tests() { one_by_one chromium "${last[@]}"; }
# What the drivers of the other browsers can do of these tests.
firefox_tests() { tests_in firefox tests/browser/{labels,library,element,index,page}.test.mjs; }
webkit_tests() { tests_in webkit tests/browser/{labels,library,index}.test.mjs; }
# docs/browsers.md is printed from what all of them said.
check_matrix() { node tests/browser/matrix.mjs "$target/browsers"; }
# tests_in BROWSER FILE...: with results for docs/browsers.md.
tests_in() {
  local browser=$1
  mkdir -p "$target/browsers"
  one_by_one "$browser" --test-reporter-destination=stdout \
    --test-reporter=./tests/browser/matrix.mjs --test-reporter-destination="$target/browsers/$browser.json" "${@:2}"
}
# one_by_one BROWSER FILE...: one file at a time, as each drives a browser that wants every core.
one_by_one() { BROWSER=$1 node --test --test-concurrency=1 --test-reporter=spec "${@:2}"; }

# The packed package wherever people put it; docs/places.md must say what was found.
places_tests() { node tests/places/run.mjs; }

beside_chromium() {
  local status=0
  firefox_tests || status=1
  webkit_tests || status=1
  places_tests || status=1
  last_tests || status=1
  return $status
}

# said_by JOB: what a job that has ended said, and whether it failed.
said_by() {
  cat "$(job_log "$1")"
  [[ " ${broken[*]} " != *" $1 "* ]]
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
  # Linking and downloads leave a core idle, so three things are built beside each other, each in a folder of its own, which cargo locks: programs
  # for this machine, wasm, and wasm with threads. What fails there is built again, and shown, by the step that needs it.
  start_job cargo-test native_tests --no-run
  need_wasm_std
  need_threads_std
  has_wasm_bindgen || start_job wasm-bindgen need_wasm_bindgen
  start_missing siglip_web_cpu_relaxed_threads siglip_web_cpu_threads
  need_vulkan
  need_browser
  need_firefox
  need_webkit
  need_npm_tools tests/places

  step "Formatting" check_format
  step "Lints of the wasm side" check_wasm_lints
  step "Documentation of the wasm side" check_wasm_docs
  start_missing siglip_web_cpu_relaxed siglip_web_cpu siglip_web_webgpu siglip_web_tokenizers
  await_jobs wasm-bindgen
  need_wasm_bindgen
  # Its module takes its turn in that folder; the others are built while it is tried.
  step "Wasm tests in Chromium" wasm_tests
  step "Lints" check_lints
  step "Documentation" check_docs
  step "Dependencies" check_dependencies
  step "Native tests" native_tests
  step "Types" check_types
  await_jobs "${!jobs[@]}"
  step "wasm-pack" wasm_pack
  # Before build.sh's own tests, which serve and pack what is built.
  step "Release wasm" build
  step "Tests of build.sh" script_tests
  # A browser that is driven keeps one core busy, and so do bundlers.
  start_job other-browsers beside_chromium
  step "Library and page in Chromium" browser_tests
  await_jobs other-browsers
  step "Library and page in Firefox, library in WebKit and in other places, faults in Chromium" said_by other-browsers
  step "What each browser can do" check_matrix

  say "Summary after $(((SECONDS - began) / 60)) min $(((SECONDS - began) % 60)) s"
  ((${#failures[@]} == 0)) || printf 'failed: %s\n' "${failures[@]}"
  ((skipped == 0)) || printf '%d skipped\n' "$skipped"
  printf '%d passed, %d failed\n' "$passed" "$failed"
  ((failed == 0))
}
