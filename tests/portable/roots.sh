#!/usr/bin/env bash
# Loads our portable libraries, the probe among them, into programs of another system.
#
#   roots.sh bullseye|trixie|musl LIB.so…      env DIVVY_BUILD_DIR
#
# Systems are made once, under $DIVVY_BUILD_DIR/roots: Debian releases by debootstrap (root needed;
# about 30 s and 250 MB each), musl from Debian's package of that name. Exit status 77 with the
# reason when one cannot be had here; a failure is one line that names library and program.
set -eu
system=$1
shift
build=$(realpath "$DIVVY_BUILD_DIR")
root=$build/roots/$system
probe=libdivvy_probe.so
mirror=${DIVVY_DEBIAN_MIRROR:-http://deb.debian.org/debian}
mkdir -p "$build/roots"

skip() {
  echo "skipped: $*"
  exit 77
}

make_debian() {
  [ "$(id -u)" -eq 0 ] || skip "a $system root needs root rights (debootstrap, chroot)"
  [ ! -x "$root/bin/true" ] || return 0
  command -v debootstrap >/dev/null || skip "debootstrap is not installed"
  rm -rf "$root.new"
  # In a mount namespace of its own: whatever it mounts is gone when it ends, however it ends.
  unshare --mount debootstrap --variant=minbase "$system" "$root.new" "$mirror" \
    >"$root.log" 2>&1 || skip "debootstrap $system failed: $(tail -1 "$root.log")"
  rm -rf "$root"
  mv "$root.new" "$root"
}

make_musl() {
  [ "$(uname -m)" = x86_64 ] || skip "the musl case is written for x86_64"
  [ ! -x "$root/lib/ld-musl-x86_64.so.1" ] || return 0
  rm -rf "$root.new"
  mkdir -p "$root.new/deb"
  (cd "$root.new/deb" && apt-get download musl) >"$root.log" 2>&1 ||
    skip "apt-get download musl failed: $(tail -1 "$root.log")"
  dpkg-deb -x "$root.new"/deb/musl_*.deb "$root.new"
  rm -rf "$root"
  mv "$root.new" "$root"
}

# expect WHAT WORDS COMMAND…: status 0 and exactly these words, on stdout and stderr together: the
# loader only complains there when it cannot preload a library.
expect() {
  local what=$1 words=$2 said
  shift 2
  if said=$("$@" 2>&1) && [ "$said" = "$words" ]; then
    echo "ok: $what"
  else
    echo "FAILED: $what: expected '$words', got '$said'"
    exit 1
  fi
}

case $system in
  musl)
    make_musl
    cd "$build/test"
    loader=$root/lib/ld-musl-x86_64.so.1
    expect "musl: probe by preload" "probe ok (preload)" "$loader" --preload "./$probe" ./portable_host
    expect "musl: probe by dlopen" "probe ok (dlopen)" "$loader" ./portable_host "./$probe"
    for lib in "$@"; do
      expect "musl: ${lib##*/} beside the probe" "probe ok (preload)" \
        "$loader" --preload "./$probe $lib" ./portable_host
    done
    if "$loader" ./portable_host >/dev/null 2>&1; then echo "passes without a probe"; exit 1; fi
    ;;
  *)
    make_debian
    rm -rf "$root/divvy"
    mkdir "$root/divvy"
    cp "$build/test/portable_host" "$@" "$root/divvy/"
    inside() { chroot "$root" /usr/bin/env -i PATH=/usr/bin:/bin "$@"; }
    version=$(inside ldd --version | sed -n '1s/.* //p')
    [ "$version" != "$(ldd --version | sed -n '1s/.* //p')" ] ||
      skip "$system has this machine's own glibc ($version): nothing to learn"
    expect "glibc $version: probe by preload" "probe ok (preload)" \
      inside LD_PRELOAD=/divvy/$probe /divvy/portable_host
    expect "glibc $version: probe by dlopen" "probe ok (dlopen)" \
      inside /divvy/portable_host /divvy/$probe
    for lib in "$@"; do
      lib=/divvy/${lib##*/}
      expect "glibc $version: $lib in true" "" inside LD_PRELOAD="$lib" true
      expect "glibc $version: $lib in bash and its children" "5" \
        inside LD_PRELOAD="$lib" bash -c 'expr $(echo 2) + 3'
      expect "glibc $version: $lib in perl" "7" inside LD_PRELOAD="$lib" perl -e 'print 7'
    done
    if inside /divvy/portable_host >/dev/null 2>&1; then echo "passes without a probe"; exit 1; fi
    ;;
esac
