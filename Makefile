# The two commands that matter: `make demo` and `make test`. `make` alone lists all of them.
MAKEFLAGS += --no-print-directory
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export ANSIBLE_CONFIG := $(CURDIR)/ansible.cfg
export MOLECULE_COMMAND_BORDERS := false
HOST ?= server1
SCENARIOS := default $(filter-out default,$(shell ls --reverse molecule)) # the longest are not the last
LAB := ansible-playbook --inventory inventory/lab

.PHONY: help
help: ## List the commands.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: ## Start four servers as containers and bring the whole site up on them.
	@molecule/default/files/set-up demo
	@echo "== Four servers"
	@$(LAB) molecule/default/create.yml
	@echo "== The site"
	@$(LAB) playbooks/site.yml
	@$(MAKE) status

.PHONY: status
status: ## Show the URL, the state of each tier and how to look around.
	@$(LAB) playbooks/status.yml

.PHONY: shell
shell: ## Open a shell in a server: make shell HOST=server3.
	@docker exec --interactive --tty webstack-$(HOST) bash

.PHONY: demo-stop
demo-stop: ## Remove the four servers and all that they hold.
	@$(LAB) --inventory molecule/default/inventory molecule/default/destroy.yml

.PHONY: test
test: ## Run everything that proves the project (about an hour).
	@molecule/default/files/set-up test
	@echo "== make lint unit sanity images"
	@$(MAKE) --jobs=2 --output-sync=target images unit lint sanity
	@echo "== make scenarios, two at a time; each one's output when it is finished"
	@rm -f .venv/failed
	@$(MAKE) --jobs=2 --output-sync=target --keep-going scenarios || $(MAKE) again
	@echo "== All passed"

.PHONY: lint
lint: ## Check the style of everything.
	yamllint --strict .
	ansible-lint
	ruff check
	ruff format --check
	bandit --quiet --recursive playbooks/files
	shellcheck molecule/default/files/build-image molecule/default/files/set-up tests/sanity/run .ci/run

.PHONY: unit
unit: ## Run the unit tests.
	pytest --quiet tests/unit

.PHONY: sanity
sanity: ## Build the collection and run ansible-test sanity on the artifact.
	tests/sanity/run

.PHONY: images
images: ## Build the lab's images, unless they are there.
	molecule/default/files/build-image debian13
	molecule/default/files/build-image sid

.PHONY: scenarios
scenarios: $(addprefix scenario-,$(SCENARIOS)) ## Prove every role, and the whole site (one: make scenario-haproxy).

# The plus sign has its line printed at once, not with the output.
.PHONY: scenario-%
scenario-%:
	@+echo "== molecule test -s $*"
	@molecule test -s $* || { echo $* >>.venv/failed; exit 1; }

# Two scenarios compete for the processors, and some tests are about time: what fails by itself, too, has failed.
.PHONY: again
again:
	@failed=$$(cat .venv/failed); for one in $$failed; do echo "== once more, alone: molecule test -s $$one"; molecule test -s $$one; done

.PHONY: site
site: ## Apply the whole site to four servers and prove it from outside.
	molecule test -s default

.PHONY: bench
bench: ## Measure: the site play, the topology, the failovers, requests a second, the switchover, reads by the number of replicas.
	pytest --quiet tests/benchmark/test_topology.py tests/benchmark/test_site.py tests/benchmark/test_failover.py \
		tests/benchmark/test_throughput.py tests/benchmark/test_switchover.py tests/benchmark/test_reads.py
