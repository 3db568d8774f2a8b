# Mini-KVM Labs: every command of the kit. `make` lists the lines that start with `#:`.

BUILD := build

# The choices of a command, set on the command line: make grade LAB=3 SOLUTION=1
LAB      ?=
SOLUTION ?=#   1: use solutions/ instead of labs/
FROM     ?=#   mine: also take earlier labs' modules from labs/; 1,2: those of labs 1 and 2
MODULE   ?=#   a file to use instead of this lab's module; for grade: a stranger's
SANITIZE ?=#   address,undefined or thread
BACKEND  ?=#   auto, kvm or vm: where the VMM runs
GUESTS   ?=#   for run: names from guests/, or files
ARGS     ?=#   for run: options for the VMM
LIMIT    ?=#   for timeline: seconds after which the run is ended
HOLD     ?=#   for run and timeline: 1: an input that stays open, with nothing in it
UNDER    ?=#   for run: a command that starts the VMM, like strace -f
WAIT     ?=#   for debug: 1: start no gdb, but wait for one

# Values from the command line are data: make does not expand them, recipes pass them to the Python tools in
# the environment, and the names used in builds contain nothing that make or a shell would expand.
GIVEN := LAB SOLUTION FROM MODULE SANITIZE BACKEND GUESTS ARGS HOLD UNDER WAIT T SEED ONLY N NAME SUBMISSIONS JOBS FORCE RUN ROW ROWS OLDER ROUNDS LIMIT
BUILT_WITH := LAB FROM MODULE SANITIZE OUT SHARED UNIT SCHED OS_OUT KERNEL_UNIT PROGRAM_DIR
given-as = $(if $(filter undefined default,$(origin $(1))),,$(eval override $(1) := $$(value $(1))))
$(foreach name,$(sort $(GIVEN) $(BUILT_WITH) CC),$(call given-as,$(name)))
export $(GIVEN)

# A module in the kit's folder counts from there: only the folder's own name may have spaces.
ifneq ($(MODULE),)
override MODULE := $(subst $(CURDIR)/,,$(MODULE))
endif

open  := (
close := )
hash  := \#
special = $(strip $(foreach char,$$ ` " ' ; & | < > \ * ? ! { } [ ] $(open) $(close) $(hash),$(findstring $(char),$(1))))
$(foreach name,$(BUILT_WITH) CC,$(if $(call special,$($(name)))$(if $(filter-out CC,$(name)),$(word 2,$($(name)))),\
    $(error $(name)=: a name that make can build with has no spaces, quotes or brackets: rename it)))

# If CC is make's default or empty, use gcc, or clang if only that is installed.
ifneq ($(filter default undefined,$(origin CC))$(if $(strip $(CC)),,empty),)
override CC := $(if $(shell command -v gcc),gcc,$(if $(shell command -v clang),clang,gcc))
endif

# The module that a learner writes in each lab. The VMM of lab N has modules 1 to N.
MODULE_1 := lab1-real-mode/vm.c
MODULE_2 := lab2-hypercalls/hypercall.c
MODULE_3 := lab3-multi-vcpu/vcpus.c
MODULE_4 := lab4-interrupts/interrupts.c
MODULE_5 := lab5-paging/paging.c
MODULE_6 := lab6-1k-os/boot.c
MODULE_7 := lab7-long-mode/long_mode.c
MODULE_8 := lab8-linux/devices.c lab8-linux/linux.c
# Lab 6 has a second module, in the kernel.
KERNEL_MODULE_6 := lab6-1k-os/sched.c

LABS := 1 2 3 4 5 6 7 8

.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules --no-print-directory
# Python's bytecode goes to build/. Without it every command would compile all of its modules again.
export PYTHONPYCACHEPREFIX := $(CURDIR)/$(BUILD)/pycache
unexport PYTHONDONTWRITEBYTECODE

SETUP := sh grader/setup.sh
# The interpreter that has pexpect, if there is one; searched at first use.
PYTHON = $(eval PYTHON := $$(shell $(SETUP) --python))$(PYTHON)

# The choices, as options of the Python tools.
# A shell's "$${NAME:+--option=$$NAME}" is that one word, or no word where NAME is empty.
GIVEN_LAB     := $${LAB:+"--lab=$$LAB"}
GIVEN_FROM    := $${FROM:+"--from=$$FROM"}
GIVEN_BACKEND := $${BACKEND:+"--backend=$$BACKEND"}
GIVEN_SEED    := $${SEED:+"--seed=$$SEED"}
CHOICE := $(GIVEN_LAB) $${SOLUTION:+--solution} $(GIVEN_FROM) $(GIVEN_BACKEND)

# ------------------------------------------------------------------ the commands

.PHONY: help
help:
	@sed -n 's/^#: \{0,1\}//p' Makefile

#: Mini-KVM Labs
#:
#: For learners
#:   make lab1 ... lab8     builds your module of that lab and boots its demonstration guests
#:   make grade LAB=3       grades lab 3, or all labs without LAB=; T=3.2 one exercise; SEED=N repeats a run
#:   make watch LAB=3       grades at every save and shows the next thing to do; Ctrl-C ends it
#:   make status            shows your progress in each lab, from the latest gradings
#:   make run LAB=3 GUESTS="counter hello" ARGS="--stats"
#:                          runs guests of your choice on your VMM
#:   make diff LAB=3        compares your file with the solution, in a clone
#:   make explain LAB=5 GUESTS=pages
#:                          runs guests, and shows how one came to crash: its last instructions, the chain of
#:                          exceptions, the likely cause; LAB=6 alone: the 1K OS with your modules
#:   make timeline LAB=4 GUESTS="ticks counter" HOLD=1
#:                          runs guests, and writes what each vCPU did and when as a page for your browser, and
#:                          as a trace for Perfetto; LAB=6 alone: the 1K OS with your modules
#:   make debug LAB=2 GUESTS=hello
#:                          runs guests under gdb: breakpoints, steps and registers of the guests; LAB=6 alone:
#:                          the 1K OS with your modules. WAIT=1 waits for a debugger that you start
#:   make os                boots the finished 1K OS on your terminal. FROM=mine: your own modules
#:   make linux             boots Linux on your VMM of lab 8, on your terminal. SOLUTION=1: on the finished one;
#:                          LINUX_KERNEL=file: another kernel; ARGS="--mem=1G": options for the VMM
#:   make demo              demonstrates the whole kit: the reference guests, then the 1K OS
#:   make doctor            reports what works on this machine and how to fix the rest
#:   make fetch             downloads and prepares the lab VM and Linux for use without a network
#:   make compile-commands  writes build/compile_commands.json for clangd and editors
#:
#: For instructors and developers, in a clone
#:   make handouts          builds build/handouts/: all handouts as a site with search and as a PDF
#:   make skeletons         regenerates labs/ from solutions/; FORCE=1 overwrites a learner's work
#:   make bench             measures exits, start, interrupts, vCPUs and computing as ratios to a bare loop
#:                          around KVM_RUN and to other programs; ROWS="exit start" selects; ROWS="grading
#:                          class suite" measures whole commands; OLDER=v1.0 also compares that revision
#:   make mutants           grades modules with one mistake each: every one must lose points, with the right
#:                          hint; LAB=3 for one lab, ONLY=name for one mutant
#:   make alternatives      grades correct modules in other styles: every one must get the full score
#:   make flakes N=100      grades each solution N times, half of them under load
#:   make test              runs every test of the kit itself
#:   make machines          before a release: grades and runs make test on each kind of machine, in Debian 12,
#:                          13 and testing; takes hours. ROW="debian13 path" selects; RUN="make os" runs that
#:   make format            formats all C in the kit's style; check-format only checks
#:   make clean             removes build/; clean-cache removes the lab VM's snapshot and kernel
#:
#: For instructors, in a clone
#:   make release           builds a tarball for learners (skeletons, no solutions) and checks it
#:   make handin LAB=3      packs a submission: the lab's files, the kit's version and the grade; learners
#:                          use it as well
#:   make grade-class LAB=3 SUBMISSIONS=folder
#:                          grades every submission in a folder, in the lab VM, JOBS=n at a time; resumes
#:                          after an interruption; writes a page, a CSV and the reports
#:   make adapters LAB=3    builds bundles for Gradescope, Autolab, Classroom 50 and GitHub Actions
#:   make cheats            grades hostile modules: none may gain a point
#:
#: Choices, for lab, run and grade
#:   SOLUTION=1 uses solutions/. FROM=mine uses your own modules of earlier labs, FROM=1,2 those of labs 1
#:   and 2. BACKEND=kvm or vm selects where the VMM runs. CC=clang and SANITIZE=address,undefined select the
#:   compiler and its sanitizers. For grade: MODULE=file.c grades a file that is not yours; it is compiled in a
#:   jail and runs in the lab VM.

.PHONY: demo test $(LABS:%=lab%) run explain debug timeline grade watch status os linux diff skeletons doctor fetch bench clean clean-cache \
	format check-format mutants alternatives flakes machines

$(LABS:%=lab%):
	@$(SETUP) build grade
	@exec $(PYTHON) -m grader.commands.play lab $(CHOICE) $(patsubst lab%,--lab=%,$@)

run: need-lab
	@$(SETUP) build grade
	@exec $(PYTHON) -m grader.commands.play run $(CHOICE) "--guests=$$GUESTS" "--under=$$UNDER" "--options=$$ARGS" $${HOLD:+--hold}

timeline: need-lab
	@$(SETUP) build grade
	@exec $(PYTHON) -m grader.commands.timeline $(CHOICE) "--guests=$$GUESTS" "--options=$$ARGS" $${HOLD:+--hold} $${LIMIT:+"--limit=$$LIMIT"}

explain: need-lab
	@$(SETUP) build grade explain
	@$$($(SETUP) --python) -m grader.commands.explain $(CHOICE) "--guests=$$GUESTS" "--options=$$ARGS"

debug: need-lab
	@$(SETUP) build grade debug
	@exec $(PYTHON) -m grader.commands.debug $(CHOICE) "--guests=$$GUESTS" "--options=$$ARGS" $${WAIT:+--wait}

# A MODULE is a stranger's: it is graded as a class's submissions are.
grade:
	@$(SETUP) build grade $${MODULE:+vm}
	@exec $(PYTHON) -m grader grade $(CHOICE) $${MODULE:+"--module=$$MODULE" --jailed --encrypted} \
	    $${T:+"--test=$$T"} $(GIVEN_SEED)

watch: need-lab
	@$(SETUP) build grade
	@exec $(PYTHON) -m grader.commands.watch $(GIVEN_LAB) $(GIVEN_FROM) $(GIVEN_BACKEND)

status:
	@$(SETUP) python
	@exec $(PYTHON) -m grader.commands.status

os:
	@$(SETUP) build grade
	@exec $(PYTHON) -m grader.commands.play os $(CHOICE)

linux:
	@$(SETUP) build grade
	@exec $(PYTHON) -m grader.commands.play linux $(CHOICE) "--options=$$ARGS"

demo:
	@$(SETUP) build grade
	@exec $(PYTHON) -m grader.commands.play demo $(CHOICE)

diff: need-lab need-clone
	@for file in $(MODULE_$(LAB)) $(KERNEL_MODULE_$(LAB)); do \
	    diff -u --color=$(if $(NO_COLOR)$(filter dumb,$(TERM)),never,auto) labs/$$file solutions/$$file || \
	        test $$? = 1 || exit 2; \
	done

skeletons: need-clone
	@$(SETUP) python
	@exec $(PYTHON) -m grader.commands.skeletons $${FORCE:+--force}

.PHONY: handouts
handouts:
	@$(SETUP) python handouts
	@exec $(PYTHON) -m grader.handouts render

doctor:
	@$(SETUP) --doctor
	@exec $(PYTHON) -m grader.commands.doctor

bench: need-clone
	@$(SETUP) build grade
	@exec $(PYTHON) -m grader.quality.bench $(GIVEN_BACKEND) $${ROWS:+"--rows=$$ROWS"} $${OLDER:+"--older=$$OLDER"} \
	    $${ROUNDS:+"--rounds=$$ROUNDS"}

mutants alternatives: need-clone
	@$(SETUP) build grade vm test
	@exec $(PYTHON) -m grader.quality.variants $@ $(GIVEN_LAB) $${ONLY:+"--only=$$ONLY"} \
	    $(GIVEN_SEED) $(GIVEN_BACKEND)

flakes: need-clone
	@$(SETUP) build grade vm
	@exec $(PYTHON) -m grader.quality.flakes $(GIVEN_LAB) $${N:+"--count=$$N"} $(GIVEN_BACKEND)

machines: need-clone
	@$(SETUP) python machines
	@exec $(PYTHON) -m grader.quality.machines $${RUN:+"--run=$$RUN"} -- $$ROW

test: need-clone
	@$(SETUP) build grade vm test handouts
	@$$($(SETUP) --python) -m grader.quality.suite

C_FILES = $(shell find common guests solutions grader os-1k -name '*.[ch]')

format:
	@$(SETUP) format
	clang-format -i $(C_FILES) $(wildcard labs/*/*.c)

check-format:
	@$(SETUP) format
	@clang-format --dry-run --Werror $(C_FILES)

clean:
	rm -rf $(BUILD)

fetch:
	@$(SETUP) build grade vm
	@exec $(PYTHON) -m grader.execution.labvm fetch

.PHONY: compile-commands
compile-commands:
	@$(SETUP) build grade
	@exec $(PYTHON) -m grader.commands.compile_commands

clean-cache:
	@$(SETUP) python
	@exec $(PYTHON) -m grader.execution.labvm clean

# ------------------------------------------------------------------ for instructors

.PHONY: release handin grade-class adapters cheats

release: need-clone
	@$(SETUP) build grade vm
	@exec $(PYTHON) -m grader.classroom.release $(GIVEN_BACKEND)

handin: need-lab
	@$(SETUP) build grade
	@exec $(PYTHON) -m grader.commands.handin $(GIVEN_LAB) $${NAME:+"--name=$$NAME"} $(GIVEN_BACKEND)

grade-class: need-lab need-clone
	@$(SETUP) build grade vm
	@exec $(PYTHON) -m grader.classroom.grade_class $(GIVEN_LAB) "--submissions=$$SUBMISSIONS" \
	    $${JOBS:+"--jobs=$$JOBS"} $(GIVEN_SEED)

adapters: need-lab need-clone
	@$(SETUP) build grade vm
	@exec $(PYTHON) -m grader.classroom.adapters $(GIVEN_LAB)

cheats: need-clone
	@$(SETUP) build grade vm
	@exec $(PYTHON) -m grader.quality.cheats $(GIVEN_LAB) $(GIVEN_BACKEND)

.PHONY: need-lab need-clone
need-clone:
	@test -e grader/quality || { echo "This is a release: it has no solutions to read, no mutants and" \
	    "no tests of its own. This command works in a clone." >&2; exit 2; }

need-lab:
	@test -n "$(MODULE_$(LAB))" || { echo "Say which lab, 1 to $(lastword $(LABS)), as in LAB=3" >&2; exit 2; }

# ------------------------------------------------------------------ the parts

.PHONY: FORCE
FORCE:

-include common/vmm.mk guests/guests.mk os-1k/os.mk

# Old dependency files may name a source that no longer exists: then rebuild what depended on it.
common/%.c: ;
grader/%.c: ;
