# What is installed when it is missing: sourced by build.sh, whose `say`, `die`, `have` and paths it uses.
# Each need_… function returns at once where what it asks for is there.
# shellcheck shell=bash disable=SC2154,SC2034

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
  local version oldest
  oldest=$(sed -n 's/.*"node": ">=\([0-9.]*\)".*/\1/p' "$root/tools/package.json")
  have node || die "Node.js is missing: install version $oldest or newer from https://nodejs.org or with: sudo apt-get install nodejs npm"
  version=$(node -p process.versions.node)
  sort -CV <<<"$oldest"$'\n'"$version" || die "Node.js $version is too old: version $oldest or newer is needed, see https://nodejs.org"
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
  libs=$(rustc --print target-libdir --target "$wasm" 2>/dev/null) && compgen -G "$libs/libstd-*.rlib" >/dev/null
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
  timeout 300 rustup target add "$wasm" </dev/null && rustup_has_std
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

# has_wasm_bindgen: sets `bindgen`, the folder of its programs. It works only with modules of exactly its own version.
has_wasm_bindgen() {
  local version folder
  version=$(locked_version wasm-bindgen)
  [[ $version ]] || die "Cargo.lock names no wasm-bindgen: restore it with git checkout Cargo.lock"
  for folder in "$tools/bin" "$(dirname "$(command -v wasm-bindgen || echo /)")"; do
    if [[ $("$folder/wasm-bindgen" --version 2>/dev/null) == "wasm-bindgen $version"* && -x $folder/wasm-bindgen-test-runner ]]; then
      bindgen=$folder
      return
    fi
  done
  return 1
}

need_wasm_bindgen() {
  ! has_wasm_bindgen || return 0
  local version settings install
  version=$(locked_version wasm-bindgen)
  say "Installing wasm-bindgen-cli $version"
  # Built sooner: without the encryption that its test runner could speak to remote browsers, and lightly optimised, which is fast enough.
  settings=(-u RUSTFLAGS "CARGO_TARGET_DIR=$target/tools-build" CARGO_PROFILE_RELEASE_OPT_LEVEL=1)
  install=(cargo install wasm-bindgen-cli --version "=$version" --no-default-features --bin wasm-bindgen --bin wasm-bindgen-test-runner --root "$tools" --force)
  # Its locked dependencies where they can be had; a mirror may lag behind them.
  env "${settings[@]}" "${install[@]}" --locked || env "${settings[@]}" "${install[@]}" ||
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

need_firefox() {
  export FIREFOX_BIN=${FIREFOX_BIN:-/usr/bin/firefox-esr}
  [[ -x $FIREFOX_BIN ]] || need_packages "the second browser of the tests" firefox-esr
  [[ -x $FIREFOX_BIN ]] || die "no Firefox at $FIREFOX_BIN: set FIREFOX_BIN to it"
}

# WebKit, Safari's engine, with its own driver; it draws on a screen that is not there.
need_webkit() {
  export WEBKIT_DRIVER=${WEBKIT_DRIVER:-/usr/bin/WebKitWebDriver} MINIBROWSER=${MINIBROWSER:-}
  [[ -x $WEBKIT_DRIVER ]] || need_packages "the third browser of the tests" webkit2gtk-driver
  have Xvfb || need_packages "the screen of the third browser" xvfb
  [[ $MINIBROWSER ]] || MINIBROWSER=$(compgen -G "/usr/lib/*/webkit2gtk-4.1/MiniBrowser" | head -n 1) || true
  [[ -x $WEBKIT_DRIVER && -x $MINIBROWSER ]] ||
    die "no driver at $WEBKIT_DRIVER or no MiniBrowser at \"$MINIBROWSER\": set WEBKIT_DRIVER and MINIBROWSER to them"
}

# The native GPU tests run on Mesa's software Vulkan, the same on every machine.
need_vulkan() {
  local icd
  compgen -G "/usr/share/vulkan/icd.d/lvp_icd*.json" >/dev/null || need_packages "the Vulkan device of the native tests" mesa-vulkan-drivers
  ldconfig -p 2>/dev/null | grep -q libvulkan.so.1 || need_packages "the Vulkan loader of the native tests" libvulkan1
  icd=$(compgen -G "/usr/share/vulkan/icd.d/lvp_icd*.json" | head -n 1)
  export VK_DRIVER_FILES=$icd VK_ICD_FILENAMES=$icd
}
