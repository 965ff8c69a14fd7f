# Set-up is venv and pip; the tested versions are in constraints.txt.
#   make serve                 serve the reward model and the policy that ship with the package
#   make test                  run the tests
#   make setup TORCH=cuda      install with a CUDA build of torch (default: cpu)
PYTHON ?= python3
VENV ?= .venv
TORCH ?= cpu
# -e: a checkout in development; empty: a copy in site-packages.
EDITABLE ?= -e

BIN := $(VENV)/bin
TORCH_VERSION := $(shell sed -n 's/^torch==//p' constraints.txt)
TORCH_INDEX_cpu := --extra-index-url https://download.pytorch.org/whl/cpu
TORCH_INDEX_cuda :=
ROUNDS ?= 5
BENCH_ROUNDS := score_throughput concurrency classifiers repeats growth latency ablation dtypes wire \
  generation rsf protocols
BENCH_ALIGN := grpo grpo_objectives pama cgpo_hack modpo_front
BENCHMARKS := $(BENCH_ROUNDS) mixed_load timeline steering_front $(BENCH_ALIGN) mapl_follow \
  multilabel pareto_weights
$(foreach name,$(BENCH_ROUNDS),$(eval BENCH_FLAGS_$(name) := --rounds $(ROUNDS)))
BENCH_FLAGS_concurrency += $(addprefix --litserve-python ,$(LITSERVE_PYTHON))
BENCH_FLAGS_classifiers += $(addprefix --infinity-python ,$(INFINITY_PYTHON))
BENCH_FLAGS_steering_front := --plot docs/images/steering_front-cpu.png
BENCH_FLAGS_steering_front += $(addprefix --prompts ,$(PROMPTS))
BENCH_FLAGS_rsf += $(addprefix --prompts ,$(PROMPTS))
$(foreach name,$(BENCH_ALIGN),$(eval BENCH_FLAGS_$(name) := --plot \
  docs/images/$(name)-cpu.png $(addprefix --prompts ,$(PROMPTS))))
BENCH_FLAGS_mapl_follow := --plot docs/images/mapl_follow-cpu.png $(addprefix --pairs ,$(PAIRS))
BENCH_FLAGS_rsf_front := --plot docs/images/rsf_front-cpu.png $(addprefix --prompts ,$(PROMPTS))
BENCH_FLAGS_rsf_front += $(addprefix --job ,$(JOB))
CHECKED := steerward tests benchmarks recipes docs

.PHONY: setup serve test check bench format pocket pocket-policy clean
.NOTPARALLEL:

setup: $(VENV)/.installed-dev
install-server: $(VENV)/.installed-standalone

$(VENV)/.installed-%: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --no-deps --retries 1 torch==$(TORCH_VERSION) $(TORCH_INDEX_$(TORCH))
	$(BIN)/pip install --quiet $(EDITABLE) '.[$*]' -c constraints.txt
	touch $@

serve: install-server
	$(BIN)/steerward serve

# Files side by side, as many as there are processors; the largest models take 1 GB each.
test: setup
	$(BIN)/python -m pytest -n logical --maxprocesses 4 --dist loadfile

check: setup
	$(BIN)/ruff format --check $(CHECKED)
	$(BIN)/ruff check $(CHECKED)
	$(BIN)/codespell $(CHECKED) README.md CHANGELOG.md
	$(BIN)/basedpyright --level error
	$(BIN)/python -m pytest -q -p no:randomly tests/test_layers.py

format: setup
	$(BIN)/ruff format $(CHECKED)
	$(BIN)/ruff check --fix $(CHECKED)

# make bench ROUNDS=5                 all of them, one after the other
# make bench-growth ROUNDS=5          one of them
# make bench-rsf_front JOB=FOLDER     the front of a finished fine-tuning job, by its folder
# PROMPTS names the prompts of those that train or steer policies; without it they ask questions of
# our own, and rsf_front reads the answers that the job was measured by. PAIRS: of mapl_follow.
# LITSERVE_PYTHON and INFINITY_PYTHON name interpreters whose environments have these peers, to
# compare with; docs/performance.md tells how to make them.
bench: $(addprefix bench-,$(BENCHMARKS))
bench-%: setup
	$(BIN)/python -m benchmarks.$* $(BENCH_FLAGS_$*) --out benchmarks/results/$$(date +%F)-cpu-$*.json

# Train what ships, from the data in DATA, as the model cards say.
pocket: setup
	$(BIN)/python -m recipes.pocket --data $(DATA)
pocket-policy: setup
	$(BIN)/python -m recipes.pocket_policy --data $(DATA)

clean:
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache .hypothesis
