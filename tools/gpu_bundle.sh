#!/usr/bin/env bash
# Puts what `make gpu-check` needs into build/gpu-bundle: copy it to a machine with an NVIDIA driver
# and run check.sh there. The libraries that the programs need go along, but for the C library, which
# must be as new as the one here.
set -eu
cd "$(dirname "$0")/.."
out=build/gpu-bundle
rm -rf "$out"
mkdir -p "$out/bin" "$out/lib/deps" "$out/tools"
for f in divvy divvyd divvy-sim-broker; do
  cp "build/bin/$f" "$out/bin/"
  strip "$out/bin/$f"
done
cp build/lib/libdivvy.so "$out/lib/"
cp -r build/lib/libcuda-forward build/lib/sim "$out/lib/"
ldd "$out"/bin/* | awk '$2 == "=>" && $3 ~ /^\// {print $3}' | sort -u |
  grep -vE '/(libc|libm|libdl|libpthread|librt|ld-linux[^/]*)\.so' |
  xargs -I{} cp -L {} "$out/lib/deps/"
cp tools/gpu_check.py "$out/tools/"
cat >"$out/check.sh" <<'EOF'
#!/bin/sh
# Measures Divvy on this machine's GPU; the two files that it writes land in measurements/.
here=$(cd "$(dirname "$0")" && pwd)
exec python3 "$here/tools/gpu_check.py" --divvy "$here/bin/divvy" --out "$here/measurements" "$@"
EOF
chmod +x "$out/check.sh"
du -sm "$out" | awk '{print "build/gpu-bundle: " $1 " MiB"; exit $1 > 40}'
