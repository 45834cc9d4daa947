#!/usr/bin/env bash
# Tests of build.sh that build nothing: what it says and returns, and which tools it would choose or install.
# Programs are replaced by stubs in a folder that is the whole PATH.
# Code for other shells stands in single quotes; lists of packages split into words.
# shellcheck disable=SC2016,SC2086
set -uo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
script=$root/build.sh
scratch=$(mktemp -d)
node=$(command -v node)
background=()
finish() {
  ((${#background[@]} == 0)) || kill "${background[@]}" 2>/dev/null
  rm -rf "$scratch"
}
trap finish EXIT
passed=0 failed=0

# check NAME: counts a test; call it right after the condition.
check() {
  local status=$?
  if ((status == 0)); then
    ((passed += 1))
    printf 'ok   %s\n' "$1"
  else
    ((failed += 1))
    printf 'FAIL %s\n' "$1"
    sed 's/^/     | /' "$scratch/out" 2>/dev/null
  fi
}

# run COMMAND...: its exit status in $status, what it said in $out.
run() {
  "$@" >"$scratch/out" 2>&1 </dev/null
  status=$?
  out=$(tr -d '\0' <"$scratch/out")
}

# stub NAME BODY: a program NAME.
stub() {
  rm -f "$scratch/bin/$1" # it may be a link to the real one
  printf '#!/bin/bash\necho "%s $*" >>"%s/calls"\n%s\n' "$1" "$scratch" "$2" >"$scratch/bin/$1"
  chmod +x "$scratch/bin/$1"
}

# fresh: a PATH with the shell's own tools and nothing to build with; no calls recorded.
fresh() {
  local tool
  rm -rf "${scratch:?}/bin" "$scratch/target" "$scratch/sysroot" "$scratch/calls"
  mkdir -p "$scratch/bin" "$scratch/target" "$scratch/sysroot/lib/rustlib/host/bin"
  touch "$scratch/calls" "$scratch/sysroot/lib/rustlib/host/bin/rust-lld"
  for tool in bash env cat cut awk sed tr head grep sha256sum mkdir rm find sort xargs dirname basename cp mv tee timeout touch tail sleep; do
    ln -s "$(command -v "$tool")" "$scratch/bin/$tool"
  done
}

# with_rust std|bare: rustc and cargo, with or without the wasm32 standard library.
with_rust() {
  local libs=$scratch/sysroot/lib/rustlib/wasm32-unknown-unknown/lib
  mkdir -p "$libs"
  [[ $1 == bare ]] || touch "$libs/libstd-0.rlib"
  stub rustc "case \$2 in sysroot) echo $scratch/sysroot ;; target-libdir) echo $libs ;; esac"
  stub cargo ''
  stub cc ''
}

# with_debian PACKAGE...: a Debian where these packages are installed; apt-get installs what it is asked for.
with_debian() {
  printf '%s\n' "$@" >"$scratch/packages"
  mkdir -p "$scratch/debian"
  printf '#!/bin/bash\necho "rustc %s (stub)"\n' "${debian_rustc:-9.0.0}" >"$scratch/debian/rustc"
  chmod +x "$scratch/debian/rustc"
  stub dpkg-query "grep -qx -- \"\${@: -1}\" $scratch/packages && printf installed"
  stub apt-get "[[ \$1 == update ]] || printf '%s\\n' \"\$@\" | grep -v -e '^-' -e '^install\$' >>$scratch/packages"
  stub sudo '[[ $2 == true ]] || shift; [[ $1 == -n ]] && shift; "$@"'
}

# inside CODE: CODE with build.sh's functions, the stubs alone in PATH, and $scratch/target.
inside() {
  run env -i HOME="$scratch" PATH="$scratch/bin" CARGO_TARGET_DIR="$scratch/target" ${SIGLIP_WEB_STD:+SIGLIP_WEB_STD=$SIGLIP_WEB_STD} \
    "$BASH" -c "source '$script'; debian_bin=$scratch/debian; $1"
}
calls() { grep -q -- "$1" "$scratch/calls"; }

# --- What the documentation names ---

for document in README.md CONTRIBUTING.md CHANGELOG.md docs/architecture.md docs/benchmarks.md docs/decisions.md docs/formats.md docs/places.md; do
  (
    cd "$root/$(dirname "$document")" || exit 1
    {
      # Links, but for those to other sites and within the page; then files and folders of the repository in code spans.
      grep -o '](\([^)#]*\)' "$root/$document" | cut -c 3- | grep -v '^https\?:'
      grep -o '`\(src\|www\|tools\|tests\|benches\|examples\|docs\)/[^` *…]*`' "$root/$document" | tr -d '`' | sed "s|^|$root/|"
    } | while read -r path; do [[ ! $path || -e $path ]] || echo "$document names $path, which is not there"; done
  ) >"$scratch/out"
  [[ ! -s $scratch/out ]]
  check "what $document names is there"
done

# --- What users type ---

run "$script" nonsense
((status == 2)) && [[ $out == *'unknown verb "nonsense"'* && $out == *usage:* ]]
check "an unknown verb shows the usage and exits with 2"

run "$script" help
((status == 0)) && [[ $out == *serve*test*bench*package*SIGLIP_WEB_STD* ]]
check "help names the verbs and the variables"

run "$script" test extra
((status == 2)) && [[ $out == *"takes no arguments"* ]]
check "a verb without arguments refuses one"

for port in 0x50 -1 65536 99999 "80 81" http; do
  run "$script" serve "$port"
  ((status == 1)) && [[ $out == *"\"$port\" is no port"* ]]
  check "serve refuses \"$port\" as a port"
done

# --- The server ---

mkdir -p "$scratch/www/pkg"
printf '0123456789' >"$scratch/www/model.bin"
printf '\0asm' >"$scratch/www/pkg/module.wasm"
printf 'export {}' >"$scratch/www/module.js"
printf '<!doctype html>' >"$scratch/www/index.html"
coproc SERVER { exec "$node" "$root/tools/serve.mjs" "$scratch/www" 0 2>&1; }
background+=("$SERVER_PID")
read -r -t 60 line <&"${SERVER[0]}"
url=$(grep -o 'http://127.0.0.1:[0-9]*/' <<<"$line")
[[ $url ]]
check "serve prints its address"
port=${url%/} port=${port##*:}

# ask METHOD PATH [HEADER VALUE]: the status, then the headers, then the body.
ask() {
  run "$node" -e '
    const [url, method, name, value] = process.argv.slice(1);
    fetch(url, { method, headers: name ? { [name]: value } : {} }).then(async (response) => {
      console.log(response.status);
      for (const [key, value] of response.headers) console.log(`${key}: ${value}`);
      console.log(await response.text());
    });' "$url${2#/}" "$1" "${@:3}"
}
ask GET /pkg/module.wasm
[[ $out == 200* && $out == *"content-type: application/wasm"* ]]
check "wasm is served as application/wasm"
[[ $out == *"access-control-allow-origin: *"* && $out == *"cache-control: no-store"* ]]
check "other origins may read, and nothing is cached"
ask GET /module.js
[[ $out == *"content-type: text/javascript"* || $out == *"content-type: application/javascript"* ]]
check "modules are served as JavaScript"
ask GET /
[[ $out == 200* && $out == *"content-type: text/html"* ]]
check "the folder's address serves its page"
[[ $out == *"cross-origin-embedder-policy: require-corp"* && $out == *"cross-origin-opener-policy: same-origin"* ]]
check "its pages are cross-origin isolated, so that workers may share memory"
ask GET /model.bin Range bytes=4-
[[ $out == 206* && $out == *"content-range: bytes 4-9/10"* && $out == *$'\n456789' ]]
check "a range is answered with just that part"
ask GET /model.bin Range bytes=20-
[[ $out == 416* ]]
check "a range past the end is answered with 416"
ask HEAD /model.bin
[[ $out == 200* && $out == *"content-length: 10"* ]]
check "HEAD tells the size"
ask GET /absent.json
[[ $out == 404* ]]
check "an absent file is a 404"
ask GET /%2e%2e/out
[[ $out == 403* || $out == 404* ]]
check "nothing outside the folder is served"
ask POST /model.bin
[[ $out == 405* ]]
check "only reading is allowed"

run "$script" serve "$port"
((status == 1)) && [[ $out == *"port $port is taken"*"choose another port"* && $out != *Compiling* ]]
check "serve says before the build that the port is taken"

# --- The package ---

mkdir -p "$scratch/repo/src" "$scratch/repo/www/samples" "$scratch/repo/www/lib/pkg" "$scratch/repo/www/lib/models/demo" "$scratch/repo/www/lib/worker"
sed -n '/^\[package\]/,/^$/p' "$root/Cargo.toml" >"$scratch/repo/Cargo.toml"
touch "$scratch/repo/src/lib.rs" "$scratch/repo/README.md"
for file in lib/siglip-web.js lib/siglip-web.d.ts lib/siglip-index.js lib/siglip-index.d.ts lib/siglip-classifier.js lib/siglip-classifier.d.ts lib/worker/worker.js index.html page.css samples/ladybug.png \
  lib/pkg/siglip_web_{cpu,cpu_relaxed,cpu_threads,cpu_relaxed_threads,webgpu,tokenizers}{.js,_bg.wasm} lib/{demo.js,demo.d.ts} lib/models/demo/{config.json,preprocessor_config.json,tokenizer.json,tokenizer_config.json,model.safetensors,spiece.model}; do
  touch "$scratch/repo/www/$file"
done
run "$node" "$root/tools/package.mjs" "$scratch/repo" "$scratch/dist"
((status == 0)) && [[ -f $scratch/dist/worker/worker.js && -f $scratch/dist/pkg/siglip_web_cpu_bg.wasm && -f $scratch/dist/models/demo/config.json ]] &&
  [[ ! -e $scratch/dist/models/demo/spiece.model && ! -e $scratch/dist/index.html && ! -e $scratch/dist/page.css && ! -e $scratch/dist/samples ]]
check "the package holds the library and the demo model, not the page"
run "$node" -p 'const m = JSON.parse(require("fs").readFileSync(process.argv[1])); [m.name, m.main, m.types, m.type, m.engines.node, m.version].join()' "$scratch/dist/package.json"
[[ $out == "siglip-web,./siglip-web.js,./siglip-web.d.ts,module,>=20"*",$(awk -F '"' '/^version/ {print $2; exit}' "$root/Cargo.toml")" ]]
check "package.json names the module, its types and the crate's version"
rm "$scratch/repo/www/lib/pkg/siglip_web_webgpu_bg.wasm"
run "$node" "$root/tools/package.mjs" "$scratch/repo" "$scratch/dist"
((status == 1)) && [[ $out == *"lacks pkg/siglip_web_webgpu_bg.wasm"*./build.sh* ]]
check "a package without its wasm is refused"

# --- A site ---

for wrong in "" "$scratch/site --dtype f32" "$scratch/site --shape round" "$scratch/site --model $scratch" "$scratch/site --labels $scratch/none" "a b"; do
  run "$script" site $wrong
  ((status == 1)) && [[ $out == build.sh:* && $out != *Compiling* && ! -e $scratch/site ]]
  check "site refuses \"${wrong//"$scratch"/…}\" before it builds"
done

printf '<head>\n</head>' >"$scratch/repo/www/index.html"
run "$node" "$root/tools/site.mjs" "$scratch/repo/www" "$scratch/site"
((status == 0)) && [[ -f $scratch/site/index.html && -f $scratch/site/lib/siglip-web.js && -f $scratch/site/lib/models/demo/config.json && ! -e $scratch/site/lib/siglip-web.d.ts ]] &&
  grep -q '"lib/siglip-web.js"' "$scratch/site/offline.js"
check "a site holds the page and its library, and lists them for the service worker"
run "$node" "$root/tools/site.mjs" "$scratch/repo/www" "$scratch/site" models/mine 'Cats & "dogs"'
((status == 0)) && grep -q '<meta name="siglip-model" content="models/mine/" data-title="Cats &amp; &quot;dogs&quot;">' "$scratch/site/index.html"
check "a site's page names the model that it opens with"
mkdir "$scratch/site/.git"
touch "$scratch/site/"{.git/HEAD,CNAME,old.js}
run "$node" "$root/tools/site.mjs" "$scratch/repo/www" "$scratch/site"
((status == 0)) && ! grep -q siglip-model "$scratch/site/index.html" && [[ -f $scratch/site/.git/HEAD && -f $scratch/site/CNAME && ! -e $scratch/site/old.js ]] &&
  ! grep -q CNAME "$scratch/site/offline.js"
check "a site is written again over itself, and leaves what belongs to the place where it is published"
mkdir "$scratch/other" && touch "$scratch/other/thesis.tex"
run "$node" "$root/tools/site.mjs" "$scratch/repo/www" "$scratch/other"
((status == 1)) && [[ $out == *"is no site"* && -f $scratch/other/thesis.tex ]]
check "any other folder is left alone"
ln -s repo/www "$scratch/link"
for wrong in repo/www repo/../repo/www/ link repo/www/lib repo/www/new repo; do
  run "$node" "$root/tools/site.mjs" "$scratch/repo/www" "$scratch/$wrong"
  ((status == 1)) && [[ $out == *"$wrong is the folder that the site is copied from"* && -f $scratch/repo/www/index.html && -f $scratch/repo/www/lib/siglip-web.js && ! -e $scratch/repo/www/new ]]
  check "what a site is made from is not replaced by it: $wrong"
done
mkdir -p "$scratch/site/models/mine"
touch "$scratch/site/models/mine/config.json" "$scratch/site/labels.txt"
ln -s site/models/mine "$scratch/mine"
for wrong in "--model $scratch/site/models/mine --dtype q4" "--model $scratch/mine" "--labels $scratch/site/labels.txt"; do
  fresh
  with_rust std
  ln -s "$node" "$scratch/bin/node"
  inside "need_node() { :; }; build() { echo built; }; site $scratch/site $wrong"
  ((status == 1)) && [[ $out == "site: "*" lies in $scratch/site, which is emptied"* && $out != *built* && -f $scratch/site/models/mine/config.json && -f $scratch/site/labels.txt ]]
  check "a site is not written over what it is to be made with: ${wrong//"$scratch"/…}"
done
truncate -s 95000000 "$scratch/repo/www/large.bin"
run "$node" "$root/tools/site.mjs" "$scratch/repo/www" "$scratch/site"
rm "$scratch/repo/www/large.bin"
((status == 1)) && [[ $out == *"large.bin has 95 MB"* ]]
check "a file that free hosts don't take is named"

# --- What is missing ---

fresh
inside need_rust
((status == 1)) && [[ $out == *"Rust is missing"*rustup* ]]
check "without Rust it names rustup"

fresh
inside need_node
((status == 1)) && [[ $out == *"Node.js is missing"*nodejs.org* ]]
check "without Node.js it says where to get it"

fresh
stub node 'echo 18.19.0'
inside need_node
((status == 1)) && [[ $out == *"18.19.0 is too old"*20* ]]
check "an old Node.js is refused with both versions"

oldest=$("$node" -p 'require(process.argv[1]).engines.node.replace(">=", "")' "$root/tools/package.json")
for version in 20.15.1 20.9.0; do
  stub node "echo $version"
  inside need_node
  ((status == 1)) && [[ $out == *"$version is too old: version $oldest or newer"* ]]
  check "so is $version, which lacks what the tests call"
done
stub node "echo $oldest.0"
inside need_node
((status == 1)) && [[ $out == *"npm is missing"* ]]
check "the oldest that the package names is taken"

run "$script" help
[[ $out == *"Node.js $oldest or newer"* ]] && grep -q "Node.js $oldest or newer" "$root/README.md" && grep -q "Node.js $oldest or newer" "$root/www/lib/README.md"
check "help and both READMEs name it"

fresh
stub node 'echo 22.1.0'
inside need_node
((status == 1)) && [[ $out == *"npm is missing"* ]]
check "without npm it says how to get it"

fresh
inside 'need_packages "a reason" chromium'
((status == 1)) && [[ $out == *chromium*"no Debian"* ]]
check "without apt-get it names the package"

fresh
with_debian chromium
inside 'need_packages "a reason" chromium'
((status == 0)) && ! calls apt-get
check "an installed package is left alone"

fresh
with_debian
inside 'need_packages "a reason" chromium libvulkan1'
((status == 0)) && calls 'apt-get install -y --no-install-recommends --no-remove chromium libvulkan1'
check "missing packages are installed without a question"

fresh
with_debian
stub apt-get 'exit 100'
inside 'need_packages "a reason" chromium'
((status == 1)) && [[ $out == *"could not install chromium"*"sudo apt-get install"* ]]
check "a package that cannot be installed is named with the command to type"

# Users without a password-less sudo get the command. A process' user id cannot be faked for a root shell.
fresh
with_debian
stub sudo 'exit 1'
if ((EUID == 0)); then
  chmod 755 "$scratch" "$scratch/bin"
  chmod 666 "$scratch/calls"
  mkdir -p "$scratch/tools"
  cp "$script" "$scratch/build.sh"
  cp "$root"/tools/*.sh "$scratch/tools"
  run setpriv --reuid=65534 --clear-groups env -i HOME="$scratch" PATH="$scratch/bin" "$BASH" -c \
    "source '$scratch/build.sh'; need_packages 'a reason' chromium"
else
  inside 'need_packages "a reason" chromium'
fi
((status == 1)) && [[ $out == *"type: sudo apt-get install -y --no-install-recommends --no-remove chromium"* ]] && ! calls 'apt-get install'
check "without root it prints the exact command"

# --- Where the wasm32 standard library comes from ---

debian="rustc-web cargo-web rust-web-src"

fresh
with_rust std
stub rustup 'exit 1'
inside 'need_wasm_std; echo "std: $std"'
((status == 0)) && [[ $out == *"std: rustup"* ]] && ! calls rustup
check "a standard library that is there is used, without asking rustup"

fresh
with_rust bare
stub rustup "touch $scratch/sysroot/lib/rustlib/wasm32-unknown-unknown/lib/libstd-0.rlib"
inside 'need_wasm_std; echo "std: $std"'
((status == 0)) && [[ $out == *"std: rustup"* ]] && calls 'rustup target add wasm32-unknown-unknown'
check "rustup fetches it where it can"

fresh
with_rust bare
with_debian
stub rustup 'exit 1'
inside 'need_wasm_std; echo "std: $std"'
((status == 0)) && [[ $out == *"std: debian"* ]] && calls "apt-get install .*$debian"
check "Debian's sources serve where rustup cannot"

: >"$scratch/calls"
inside 'need_wasm_std; echo "std: $std"'
((status == 0)) && [[ $out == *"std: debian"* ]] && ! calls rustup && ! calls apt-get
check "the second run asks neither rustup nor apt-get again"

fresh
with_rust std
with_debian
SIGLIP_WEB_STD=debian inside 'need_wasm_std; echo "std: $std"'
((status == 0)) && [[ $out == *"std: debian"* ]] && calls "apt-get install .*$debian"
check "SIGLIP_WEB_STD=debian forces Debian's sources"

fresh
with_rust std
debian_rustc=1.85.0 with_debian $debian
SIGLIP_WEB_STD=debian inside need_wasm_std
((status == 1)) && calls "apt-get update" && calls "apt-get install .*$debian" && [[ $out == *"rustc 1.85.0 (stub) is older"*"apt-get update"* ]]
check "a Debian toolchain that is too old is brought up to date, or named"

fresh
with_rust std
with_debian $debian
stub debian-cargo "printf '%s\n' \"\$RUSTC|\$RUSTC_BOOTSTRAP|\$CARGO_UNSTABLE_BUILD_STD|\$CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER|\$RUSTFLAGS|\$*\""
cp "$scratch/bin/debian-cargo" "$scratch/debian/cargo"
inside "export RUSTFLAGS=-Dwarnings; std=debian; wasm_cargo build"
[[ $out == "$scratch/debian/rustc|1|std,panic_abort,test|$scratch/sysroot/lib/rustlib/host/bin/rust-lld||build" ]]
check "Debian's cargo builds the standard library, links with rust-lld and ignores RUSTFLAGS"

fresh
with_rust bare
with_debian $debian
stub rustup 'exit 1'
SIGLIP_WEB_STD=rustup inside need_wasm_std
((status == 1)) && [[ $out == *"rustup target add wasm32-unknown-unknown"*SIGLIP_WEB_STD=debian* ]]
check "SIGLIP_WEB_STD=rustup fails with what to do where rustup cannot fetch"

fresh
with_rust std
SIGLIP_WEB_STD=fedora inside need_wasm_std
((status == 1)) && [[ $out == *'"fedora"'*"auto, rustup or debian"* ]]
check "any other SIGLIP_WEB_STD is refused"

# --- The standard library of the module with threads ---

sources=lib/rustlib/src/rust/library/std
fresh
with_rust std
mkdir -p "$scratch/sysroot/$sources"
touch "$scratch/sysroot/$sources/Cargo.toml"
stub rustup 'exit 1'
inside 'std=rustup; need_threads_std; echo "std: $threads_std"'
((status == 0)) && [[ $out == *"std: rustup"* ]] && ! calls rustup
check "the standard library's sources that are there are used, without asking rustup"

fresh
with_rust std
stub rustup "mkdir -p $scratch/sysroot/$sources; touch $scratch/sysroot/$sources/Cargo.toml"
inside 'std=rustup; need_threads_std; echo "std: $threads_std"'
((status == 0)) && [[ $out == *"std: rustup"* ]] && calls 'rustup component add rust-src'
check "rustup fetches them where it can"

fresh
with_rust std
with_debian
stub rustup 'exit 1'
inside 'std=rustup; need_threads_std; echo "std: $threads_std"'
((status == 0)) && [[ $out == *"std: debian"* ]] && calls "apt-get install .*$debian"
check "Debian's sources serve threads where rustup cannot"

fresh
with_rust std
stub cargo "printf '%s\\n' \"\$RUSTC_BOOTSTRAP|\$CARGO_UNSTABLE_BUILD_STD|\$CARGO_TARGET_DIR|\$*\""
inside 'threads_std=rustup; threads_cargo build'
[[ $out == "1|std,panic_abort|$scratch/target/threads|--config target.wasm32-unknown-unknown.rustflags=['-C', 'target-feature=+atomics,+bulk-memory'] build" ]]
check "threads get a standard library of their own, in a folder of their own"

# --- wasm-bindgen ---

locked=$(awk '$3 == "\"wasm-bindgen\"" {getline; gsub(/"/, "", $3); print $3; exit}' "$root/Cargo.lock")
fresh
with_rust std
stub wasm-bindgen "echo 'wasm-bindgen $locked'"
stub wasm-bindgen-test-runner ''
inside 'need_wasm_bindgen; echo "from: $bindgen"'
((status == 0)) && [[ $out == *"from: $scratch/bin"* ]] && ! calls cargo
check "wasm-bindgen of Cargo.lock's version is used where it is"

stub wasm-bindgen 'echo wasm-bindgen 0.2.1'
inside 'need_wasm_bindgen; echo "from: $bindgen"'
((status == 0)) && calls "cargo install wasm-bindgen-cli --version =$locked" && [[ $out == *"from: $scratch/target/tools/bin"* ]]
check "any other version is not: Cargo.lock's is installed"

# --- Jobs side by side ---

fresh
# Ends once it was waited for.
stub sleep "touch $scratch/waited"
inside "start_job one eval 'until [[ -e $scratch/waited ]]; do :; done'; start_job two true; finish_jobs; echo done"
((status == 0)) && [[ $out == *"waiting for "*one*done ]]
check "what is being waited for is said, and all of it ends"

printf '   Compiling a\n    Building [==>   ] 86/143: a\r    Building [==>   ] 87/143: a, b\r' >"$scratch/target/logs/bar.log"
inside 'crates bar'
[[ $out == 87/143 ]]
check "cargo's progress bar says how many crates of how many are compiled"

inside 'start_job good true; start_job bad eval "echo the reason; exit 3"; finish_jobs; echo done'
((status == 1)) && [[ $out == *"the reason"*"bad failed"* && $out != *done* ]]
check "a job that fails shows what it said, and ends the build"

ln -sf "$(command -v sleep)" "$scratch/bin/sleep"
mkfifo "$scratch/begun" "$scratch/held"
# Ends when nobody can write there any more.
timeout 60 cat "$scratch/held" &
reader=$!
inside "start_job endless eval 'exec 9>$scratch/held; echo >$scratch/begun; exec sleep 600'; read -r -t 60 <>$scratch/begun; kill \$\$; finish_jobs"
((status == 143)) && wait "$reader"
check "a build that is stopped leaves no job behind"

# --- The summary ---

fresh
printf '\nrunning 4 tests\ntest result: ok. 3 passed; 0 failed; 1 ignored; 0 measured\n\e[34mℹ pass 5\e[39m\nℹ fail 2\nℹ skipped 1\n' >"$scratch/log"
inside "count $scratch/log"
[[ $out == "8 2 2" ]]
check "the counts of libtest and node:test are summed"

inside "logs=$scratch; step good true; step bad false; step broken eval 'echo \"test result: ok. 2 passed; 0 failed\"; exit 3'; echo \"\$passed \$failed \${failures[*]}\""
[[ $out == *"3 2 bad broken" ]]
check "a step that breaks counts as failed, whatever it had counted"

printf '\ntest result: %d passed; %d failed\n' "$passed" "$failed"
((failed == 0))
