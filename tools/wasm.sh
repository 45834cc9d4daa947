# The wasm modules: sourced by build.sh, after setup.sh.
# shellcheck shell=bash disable=SC2154

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
# one-caller-inline-max-function-size: without it functions of up to 229 KB come about, which browsers compile whole when a part of them is called.
wasm_opt=(-O2 --low-memory-unused --one-caller-inline-max-function-size=50 --enable-simd --enable-bulk-memory --enable-bulk-memory-opt --enable-call-indirect-overlong
  --enable-nontrapping-float-to-int --enable-sign-ext --enable-mutable-globals --enable-reference-types
  --enable-multivalue --strip-debug --strip-producers --strip-target-features)

# What each module is built from, in the order in which pages need them.
modules=(siglip_web_cpu_relaxed siglip_web_cpu siglip_web_cpu_relaxed_threads siglip_web_cpu_threads siglip_web_webgpu
  siglip_web_tokenizers)

# of_module NAME COMMAND...: the command with what build_wasm needs to know of the module.
of_module() {
  local name=$1
  shift
  case $name in
    siglip_web_cpu_relaxed) "$@" "$name" "" relaxed-simd ;;
    siglip_web_cpu) "$@" "$name" ;;
    siglip_web_cpu_relaxed_threads) "$@" "$name" "" relaxed-simd threads ;;
    siglip_web_cpu_threads) "$@" "$name" "" threads ;;
    siglip_web_webgpu) "$@" "$name" webgpu ;;
    siglip_web_tokenizers) "$@" "$name" ;;
  esac
}

# build_wasm NAME [FEATURES [EXTRA...]]: www/lib/pkg/NAME.js and www/lib/pkg/NAME_bg.wasm, using what only some browsers have: relaxed-simd in this
# crate's code, threads in everything. Skips each half whose inputs are those of last time.
# With `first_look` set it leaves the optimising to the next time.
build_wasm() {
  compile_wasm "$@"
  bind_wasm "$@"
}

# with_settings FUNCTION NAME [FEATURES [EXTRA...]]: calls it with the variables that both halves share.
with_settings() {
  local half=$1 name=$2 features=${3:-} extra toolchain=$std cargo=wasm_cargo folder=$target symbol
  # Instructions in the order of the source: the matrix products are written so that what they hold fits a browser's vector
  # registers, and the compiler, which thinks there is any number of them, would move loads ahead.
  local work=$target/modules/$name flags=(-C llvm-args=-pre-RA-sched=source) opt=("${wasm_opt[@]}")
  # Its arithmetic is the GPU's.
  if [[ $features == webgpu ]]; then opt[0]=-Oz; fi
  shift $(($# < 3 ? $# : 3))
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
  local raw=$work/$name.wasm package=siglip-web from=(src) linked sources
  if [[ $name == siglip_web_tokenizers ]]; then
    package=siglip-web-tokenizers from=(src/tokenizer/{module,budget.rs,charsmap.rs,library.rs})
  fi
  linked=$folder/$wasm/web/${package//-/_}.wasm
  sources=$(
    cd "$root"
    {
      find Cargo.toml Cargo.lock .cargo "${from[@]}" -type f -print0 | sort -z | xargs -0 sha256sum
      rustc_version "$toolchain"
      echo "$toolchain $features ${flags[*]}"
    } | checksum
  )
  "$half"
}

compile_wasm() { with_settings compile_now "$@"; }
bind_wasm() { with_settings bind_now "$@"; }
# is_compiled NAME...: whether the module is that of the sources as they are.
is_compiled() { with_settings compiled "$@"; }

compiled() { [[ -f $raw && -f $work/sources && $(<"$work/sources") == "$sources" ]]; }

compile_now() {
  ! compiled || return 0
  say "Compiling $name"
  mkdir -p "$work"
  # All modules have the same file name, and cargo does not see that another took its place.
  rm -f "$linked" "${linked%/*}/deps/${linked##*/}" "$work/sources"
  (cd "$root" && $cargo rustc --locked --profile web --target "$wasm" --package "$package" --lib --crate-type cdylib \
    --no-default-features --features "$features" -- "${flags[@]}") || die "$name did not compile: see the messages above"
  # See `construct` in src/device.rs.
  ! grep -aq command_export "$linked" || die "$name would run its constructors at every call from JavaScript"
  cp "$linked" "$raw"
  echo "$sources" >"$work/sources"
}

bind_now() {
  local out=$root/www/lib/pkg finish
  # The glue as one function that makes it: each instance of a module has its own, and a trapped one is replaced without loading the script again.
  local glue=(--target no-modules --no-typescript --remove-name-section --remove-producers-section)
  local made='export const create = () => (function(exports) {'
  finish="$({
    checksum "$raw" "$root/tools/package-lock.json"
    "$bindgen/wasm-bindgen" --version
    echo "${opt[*]} ${glue[*]} $made"
  } | checksum)"
  if [[ -f $work/finish && $(<"$work/finish") == "$finish $(checksum "$out/$name.js" "$out/${name}_bg.wasm" 2>/dev/null)" ]]; then
    return
  fi
  say "Binding and optimising $name"
  mkdir -p "$out"
  "$bindgen/wasm-bindgen" "${glue[@]}" --out-dir "$work" --out-name "$name" "$raw" || die "wasm-bindgen failed on $raw"
  sed -i -e "s/^ *let wasm_bindgen = (function(exports) {\$/$made/" -e '1i // @ts-nocheck' "$work/$name.js"
  grep -qxF "$made" "$work/$name.js" || die "wasm-bindgen writes its glue in another form now: mend bind_now in tools/wasm.sh"
  if [[ ${first_look:-} ]]; then
    cp "$work/${name}_bg.wasm" "$work/optimised.wasm"
  else
    "$node_bin/wasm-opt" "${opt[@]}" "$work/${name}_bg.wasm" -o "$work/optimised.wasm" || die "wasm-opt failed on $work/${name}_bg.wasm"
  fi
  # The script last: who finds it finds its module.
  mv "$work/optimised.wasm" "$out/${name}_bg.wasm"
  mv "$work/$name.js" "$out/$name.js"
  [[ ${first_look:-} ]] || echo "$finish $(checksum "$out/$name.js" "$out/${name}_bg.wasm")" >"$work/finish"
}

# The module that pages need first, and no more of the tools than it takes: the rest is built while the page is open.
build_first() {
  need_rust
  need_node
  need_wasm_std
  start_missing_tools
  start_missing "${modules[0]}"
  finish_jobs
  need_wasm_bindgen
  # Where there is nothing to show yet, what wasm-opt would gain can wait: `build` has it done.
  local first_look
  [[ -f $root/www/lib/pkg/${modules[0]}.js ]] || first_look=yes
  of_module "${modules[0]}" bind_wasm
}

# All modules. Two at a time: linking, half of the work, keeps but one core busy. Each of the two has its folder, which cargo locks.
build() {
  local name
  build_first
  need_threads_std
  start_missing siglip_web_cpu_relaxed_threads siglip_web_cpu_threads
  start_missing siglip_web_cpu siglip_web_webgpu siglip_web_tokenizers
  finish_jobs
  for name in "${modules[@]}"; do of_module "$name" bind_wasm; done
}

# start_missing NAME...: builds those modules, one after the other, beside what follows.
start_missing() {
  local name missing=()
  for name; do of_module "$name" is_compiled || missing+=("$name"); done
  ((${#missing[@]} == 0)) || start_job "${missing[*]}" build_modules "${missing[@]}"
}

build_modules() {
  local name
  for name; do
    of_module "$name" compile_wasm
    # The tool may still be on its way.
    [[ ! ${bindgen:-} ]] || of_module "$name" bind_wasm
  done
}

start_missing_tools() { has_wasm_bindgen || start_job wasm-bindgen behind need_wasm_bindgen; }

# behind COMMAND...: after all else that runs. A core is free while a module is linked.
behind() {
  renice -n 10 -p "$BASHPID" >/dev/null
  "$@"
}

sizes() {
  local file
  for file in "$root"/www/lib/pkg/*.wasm; do
    printf '%s: %.2f MB, gzip %.2f MB\n' "${file#"$root/"}" "$(wc -c <"$file")e-6" "$(gzip -9c "$file" | wc -c)e-6"
  done
}
