# What people and CI type. Everything real is in CMake and tools/; `make help` lists the targets.
JOBS ?= $(shell nproc)
CTEST = ctest --output-on-failure --timeout 180 -j $(JOBS)
PRODUCT = divvy divvyd divvy-hook divvy_shim divvy_forwarder divvy-sim-broker sim_cuda sim_nvml
LIGHT = -LE 'heavy|model'

.PHONY: help all setup setup-clang setup-prometheus setup-package configure package test-package product build demo demo-load test test-web test-prometheus test-containers check-fast bench bench-placement gen asan tsan clang tidy fuzz model roots gpu-check gpu-bundle format clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 26

all: build

setup-clang:
	@tools/setup.sh clang

setup-prometheus:
	@tools/setup.sh prometheus

setup-package:
	@tools/setup.sh package

setup: ## install missing Debian packages (as root); nothing to do when all are there
	@tools/setup.sh

configure: setup
	@mkdir -p build
	@cmake --preset release >build/configure.log 2>&1 || { cat build/configure.log; exit 1; }

product: configure
	@ninja -C build -j $(JOBS) $(PRODUCT)

build: configure ## everything: programs, libraries, simulator, tests, benchmarks
	@ninja -C build -j $(JOBS)

demo: product ## two programs share one GPU, a third is refused; simulated where there is no GPU
	@tools/demo.sh

test: build ## every test that needs no GPU and no network beyond apt
	@$(CTEST) --test-dir build $(LIGHT)

test-web: product ## the dashboard in headless Chromium (Debian: chromium, fonts-noto-cjk)
	@DIVVY_BUILD_DIR=$(CURDIR)/build python3 tests/web/dashboard_test.py || [ $$? -eq 77 ]

demo-load: product ## eight unlike loads on a simulated GPU; every view of them agrees with what they counted
	@tools/demo_load.py

test-prometheus: setup-prometheus product ## a real Prometheus reads divvyd with deploy/'s files (Debian: prometheus)
	@DIVVY_BUILD_DIR=$(CURDIR)/build python3 tests/prometheus/prometheus_test.py || [ $$? -eq 77 ]

test-containers: product ## containers in shares of a simulated GPU, by podman with runc and crun (root; Debian: podman, runc, crun, busybox-static)
	@ninja -C build -j $(JOBS) finder finder_linked
	@for runtime in runc crun; do \
	  DIVVY_TEST_RUNTIME=$$runtime DIVVY_BUILD_DIR=$(CURDIR)/build \
	    python3 tests/containers/containers_test.py || [ $$? -eq 77 ] || exit 1; done

package: product ## Debian packages and a tarball, in build/package; the same commit gives the same bytes
	@ninja -C build -j $(JOBS) divvy_help divvy_loader32
	@tools/package.py

test-package: setup-package package ## the packages: built twice, linted, installed, upgraded and purged in a fresh Debian (root, network)
	@DIVVY_BUILD_DIR=$(CURDIR)/build python3 tests/package/package_test.py || [ $$? -eq 77 ]

check-fast: ## format, layers, generator output: seconds, needs no build
	@tools/format.sh --check
	@python3 tools/check_layers.py
	@tools/gen.sh --verify

bench: build ## benchmarks; ratios from one run
	@for b in build/bench/*; do \
	  if [ -f "$$b" ] && [ -x "$$b" ]; then echo "== $$b"; "$$b" || exit 1; fi; done

bench-placement: build ## placement: conformance, goals, scaling (about 10 minutes; needs the trace)
	@tools/bench_placement.py

gpu-check: product ## measures Divvy on this machine's GPU (8 minutes); writes docs/measurements/
	python3 tools/gpu_check.py

gpu-bundle: product ## what gpu-check needs, in build/gpu-bundle, to copy to a machine with a GPU
	tools/gpu_bundle.sh

gen: ## write src/*/generated and docs from api/
	@tools/gen.sh

asan: setup ## AddressSanitizer and UBSan build, and its tests
	cmake --preset asan && ninja -C build-asan -j $(JOBS) && \
	  tools/sanitizer_tests.sh asan --timeout 300 -j $(JOBS) $(LIGHT)

tsan: setup ## ThreadSanitizer build, and its tests
	cmake --preset tsan && ninja -C build-tsan -j $(JOBS) && \
	  tools/sanitizer_tests.sh tsan --timeout 300 -j $(JOBS) $(LIGHT)

clang: setup-clang ## clang build with thread-safety analysis, and its tests
	cmake --preset clang && ninja -C build-clang -j $(JOBS) && $(CTEST) --test-dir build-clang $(LIGHT)

tidy: setup-clang ## clang-tidy over what the last commit changed (tools/tidy.sh --all: everything)
	@tools/tidy.sh

fuzz: setup-clang ## libFuzzer targets, FUZZ_SECONDS (30) each
	cmake --preset fuzz && ninja -C build-fuzz -j $(JOBS) fuzzers
	@tools/fuzz.sh

model: build ## the arbiter's random mixes in its discrete-event model
	@$(CTEST) --timeout 850 --verbose --test-dir build -L model

roots: build ## our preloaded libraries on older and newer Debian and on musl (root, network)
	@ctest --output-on-failure --test-dir build -L heavy

format: ## clang-format in place
	@tools/format.sh

clean: ## remove every build folder
	rm -rf build build-asan build-tsan build-clang build-fuzz
