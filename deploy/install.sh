#!/bin/sh
# Installs what lies beside this script, or removes it again.
#
#   ./install.sh [--prefix DIR] [--uninstall]     DIR: /usr/local; env DESTDIR is put before it
#
# Nothing is started. A list of what was installed lies in DIR/share/doc/divvy/installed.
set -eu
prefix=/usr/local
uninstall=
while [ $# -gt 0 ]; do
  case $1 in
    --prefix) prefix=${2:?--prefix needs a folder}; shift ;;
    --prefix=*) prefix=${1#*=} ;;
    --uninstall) uninstall=yes ;;
    *) sed -n '2,6s/^# \{0,1\}//p' "$0"; [ "$1" = --help ] && exit 0; exit 2 ;;
  esac
  shift
done
case $prefix in /*) ;; *) echo "install.sh: --prefix must be absolute, not '$prefix'" >&2; exit 2 ;; esac
root=${DESTDIR-}$prefix
list=$root/share/doc/divvy/installed

if [ -n "$uninstall" ]; then
  [ -f "$list" ] || { echo "install.sh: nothing of Divvy is installed in $root" >&2; exit 1; }
  files=$(cat "$list")
  echo "$files" | while IFS= read -r file; do rm -f "$root/$file"; done
  rm -f "$list"
  # Folders that are empty now, the deepest first; those of others stay.
  echo "$files" | while IFS= read -r file; do
    while file=$(dirname "$file") && [ "$file" != . ]; do echo "$file"; done
  done | sort -ru | while IFS= read -r dir; do rmdir "$root/$dir" 2>/dev/null || true; done
  echo "removed from $root"
  exit 0
fi

cd "$(dirname "$0")"
if ! bin/divvy version >/dev/null 2>&1; then
  echo "install.sh: the programs do not run here; they need x86-64 and the C library of:" >&2
  cat share/doc/divvy/built-on >&2
  bin/divvy version 2>&1 | head -1 >&2
  exit 1
fi
[ ! -f "$list" ] || "$0" --prefix "$prefix" --uninstall >/dev/null
mkdir -p "$root"
find bin lib share \( -type f -o -type l \) | LC_ALL=C sort | while IFS= read -r file; do
  mkdir -p "$root/$(dirname "$file")"
  # Beside and renamed: what runs keeps the file that it has.
  cp -P "$file" "$root/$file.new"
  mv -f "$root/$file.new" "$root/$file"
done
find bin lib share \( -type f -o -type l \) | LC_ALL=C sort >"$list"
sed -i "s|/usr/bin/divvyd|$prefix/bin/divvyd|;s|/usr/share/doc|$prefix/share/doc|" \
  "$root/lib/systemd/system/divvyd.service"
echo "installed in $root; as a service: systemctl daemon-reload && systemctl enable --now divvyd"
