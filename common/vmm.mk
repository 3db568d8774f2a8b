# Builds the VMM of a lab, and Check programs linked with it. Included by the Makefile.
#
# `make vmm LAB=3` builds build/vmm/<variant>/vmm and prints its path; OUT= names another folder.
# A module may also be an object file: a release contains the solutions in this form.

# With PROGRESS=1 a recipe prints the file that it builds.
STEP = $(if $(PROGRESS),$(info : $(notdir $@)))

# A recipe that starts so leaves none of these incomplete files, even if it is interrupted.
tidy = trap 'rm -f $(1)' EXIT; trap 'exit 1' INT TERM;

comma   := ,
space   := $(subst ,, )
CC_NAME   := $(subst /,_,$(subst $(space),_,$(strip $(CC))))
SANITIZED := $(if $(SANITIZE),-$(subst $(comma),+,$(SANITIZE)))
VARIANT := lab$(LAB)$(if $(SOLUTION),-solution)$(if $(FROM),-from-$(FROM))$(if \
	$(MODULE),-$(subst /,_,$(basename $(MODULE))))$(if $(filter-out gcc,$(CC)),-$(CC_NAME))$(SANITIZED)
OUT     ?= $(BUILD)/vmm/$(VARIANT)

# Objects that are the same in every lab are compiled once per compiler and sanitizers. Several makes may
# do that at the same time, so an object is renamed once it is complete.
SHARED  ?= $(BUILD)/objects/$(CC_NAME)$(SANITIZED)

WARNINGS  := -Wall -Wextra -Wshadow -Wconversion -Wformat-security -Wno-unused-parameter
VMM_FLAGS := -std=gnu11 -O2 -g $(WARNINGS) -pthread -Icommon/contract -Icommon \
	$(if $(SANITIZE),-fsanitize=$(SANITIZE) -fno-omit-frame-pointer -fno-sanitize-recover=all)

# Objects don't declare whether they need an executable stack; none does. No link-time optimization.
LINK_FLAGS := -Wl,-z,noexecstack -fno-lto

# The labs whose modules are part of this VMM, the last one being this lab.
STAGES  := $(if $(LAB),$(filter-out 0,$(wordlist 1,$(LAB),$(LABS))))
MINE    := $(if $(SOLUTION),,$(if $(filter mine,$(FROM)),$(LABS),$(subst $(comma), ,$(FROM))))

# solved NAME: the file, or its object if only that exists.
solved = $(or $(wildcard $(1)),$(wildcard $(1:.c=.o)),$(1))

# file-of N FILE: the file in this VMM for one of lab N's, a name in MODULE_N. MODULE= replaces the one with
# its name, or the lab's only one; then the others are solutions.
file-of = $(call solved,$(if $(call is-given,$(1),$(2)),$(MODULE),$(call folder-of,$(1))/$(2)))
is-given = $(and $(MODULE),$(filter $(LAB),$(1)),$(if $(word 2,$(MODULE_$(1))),$(filter \
	$(notdir $(basename $(2))),$(notdir $(basename $(MODULE)))),yes))
folder-of = $(if $(if $(filter $(LAB),$(1)),$(or $(SOLUTION),$(MODULE)),$(if $(filter $(1),$(MINE)),,yes)),solutions,labs)

# module-of N FILE: what it is made from; a solution is a shared object file.
module-of = $(patsubst solutions/%.c,$(SHARED)/solutions/%.o,$(call file-of,$(1),$(2)))

COMMON_OBJECTS := $(patsubst %.c,$(SHARED)/%.o,$(wildcard common/core/*.c common/debug/*.c common/stages/lab$(LAB).c))
MODULE_OBJECTS := $(STAGES:%=$(OUT)/lab%.o)
OBJECTS        := $(COMMON_OBJECTS) $(MODULE_OBJECTS)

.PHONY: vmm
vmm: need-lab $(OUT)/vmm
	@echo $(OUT)/vmm

# The functions of the C library whose calls the tools of common/debug/ see.
OBSERVED := ioctl pthread_mutex_unlock pthread_kill read __read_chk timerfd_create

$(OUT)/vmm: $(OBJECTS)
	@$(STEP)$(call tidy,$@.new) $(CC) $(VMM_FLAGS) $(LINK_FLAGS) $(OBSERVED:%=-Wl$(comma)--wrap=%) $^ -o $@.new && mv $@.new $@

$(SHARED)/%.o: %.c $(SHARED)/flags
	@$(STEP)mkdir -p $(@D)
	@$(call tidy,$@.$$$$.?) $(CC) $(VMM_FLAGS) -MMD -MP -MT $@ -MF $@.$$$$.d -c $< -o $@.$$$$.o && mv $@.$$$$.d $(@:.o=.d) && \
	    mv $@.$$$$.o $@

# A file that changes only when its text does. Make itself compares them: in most builds no text has changed.
# $(1): the file, $(2): the text, $(3): more folders to create.
define text-rule
$(1): $(if $(and $(findstring <$(2)>,<$(file <$(1))>),$(findstring <$(file <$(1))>,<$(2)>)),,FORCE)
	@mkdir -p $(dir $(1)) $(3)
	@echo '$(2)' > $$@.$$$$$$$$ && mv $$@.$$$$$$$$ $$@
endef

# When the command line changes, all objects next to these are rebuilt.
$(foreach folder,$(SHARED) $(OUT),$(eval $(call text-rule,$(folder)/flags,$(CC) $(VMM_FLAGS))))

# A function that only a TODO's answer calls is unused until then, which is not a mistake.
quiet-todo = $(if $(shell grep -s '\bTODO\b' $(1)),-Wno-unused)

# keep-sum FILE SUM: a restored copy of a learner's file may be older than the object of the previous
# version, so SUM changes with the content, not with the time.
keep-sum = @cksum < $(1) | cmp -s - $(2) || cksum < $(1) > $(2)

# Prints the names of the functions declared in a header.
CONTRACT = sed -n 's/^[a-z][^(]*[ *]\([a-z0-9_]*\)(.*/\1/p'

# A module exports only the functions of its lab's contract. (With sanitizers it can't: they add code that
# runs before main to every object.)
close-module = $(if $(SANITIZE),cp $(1) $(2),sh common/close_module.sh $(1) $(2))

# One file of a module: $(1) is its lab, $(2) the file, $(3) the object. Its sum is that of a learner's file, or
# the name of a solution's object: the folder may have been used for the other before.
define file-rule
$(if $(filter $(SHARED)/%,$(2)),$(call text-rule,$(3:.o=.sum),$(2)),
$(3:.o=.sum): $(2) $(OUT)/flags FORCE
	$$(call keep-sum,$$<,$$@)
)
$(3): $(2) $(3:.o=.sum) $(OUT)/flags
	@$$(STEP)$$(if $$(filter %.o,$$<),cp $$< $$@,$$(CC) $$(VMM_FLAGS) $$(call quiet-todo,$$<) -MMD -MP -c $$< -o $$@)
endef

# parts-of N: the objects of its files.
parts-of = $(foreach file,$(MODULE_$(1)),$(call part-of,$(1),$(file)))
part-of  = $(OUT)/lab$(1)-$(basename $(notdir $(2))).o

define module-rule
$(foreach file,$(MODULE_$(1)),$(eval $(call file-rule,$(1),$(call module-of,$(1),$(file)),$(call part-of,$(1),$(file)))))
$(OUT)/lab$(1)-whole.o: $(call parts-of,$(1))
	@ld -r $$^ -o $$@

$(OUT)/lab$(1).o: $(OUT)/lab$(1)-whole.o common/module.ld common/close_module.sh
	@$$(CONTRACT) common/contract/lab$(1).h | $$(call close-module,$$<,$$@)
endef
$(foreach lab,$(STAGES),$(eval $(call module-rule,$(lab))))

# The command that compiles a module, to compile it elsewhere.
.PHONY: vmm-flags
vmm-flags: need-lab
	@echo '$(CC) $(VMM_FLAGS) $(call quiet-todo,$(foreach file,$(MODULE_$(LAB)),$(call file-of,$(LAB),$(file))))'

-include $(wildcard $(OUT)/*.d $(SHARED)/*/*/*.d)

# `make unit LAB=4 UNIT=file.c` links a Check program with the same objects, except those of the program itself.
PROGRAM_OBJECTS := $(SHARED)/common/core/main.o $(SHARED)/common/debug/library_calls.o
UNIT_PROGRAM := $(OUT)/unit-$(basename $(notdir $(UNIT)))
UNIT_OBJECT  := $(SHARED)/$(UNIT:.c=.o)

.PHONY: unit
unit: need-lab $(UNIT_PROGRAM)
	@echo $(UNIT_PROGRAM)

# A unit program may replace functions of the C library; the thread sanitizer calls them before it can
# handle calls from instrumented code.
UNIT_FLAGS := $(if $(filter thread,$(SANITIZE)),-fno-sanitize=thread)

# It may also replace the VMM's own functions: UNIT_WRAPS names those that __wrap_NAME replaces.
# UNIT_SCRIPT is an additional linker script.
UNIT_LINK := $(UNIT_WRAPS:%=-Wl$(comma)--wrap=%) $(UNIT_SCRIPT:%=-Wl$(comma)-T$(comma)%)

ifdef UNIT
-include $(UNIT_OBJECT:.o=.d)

$(UNIT_OBJECT): private VMM_FLAGS += $(UNIT_FLAGS) $(shell pkg-config --cflags check)

$(UNIT_PROGRAM): $(UNIT_OBJECT) $(UNIT_SCRIPT) $(filter-out $(PROGRAM_OBJECTS),$(OBJECTS))
	@$(STEP)$(call tidy,$@.new) $(CC) $(VMM_FLAGS) $(LINK_FLAGS) $(UNIT_LINK) $(filter %.o,$^) -o $@.new \
	    $$(pkg-config --libs check) && mv $@.new $@
endif
