# The 1K OS: `make kernel` and `make archive` build its two files and print their paths. SCHED= replaces
# the solution's sched.c, OS_OUT= the folder build/os-1k.

SCHED  ?= solutions/$(KERNEL_MODULE_6)
SCHED_FLAGS ?=#   more compiler options, from the grader
SCHED_GIVES ?=#   functions that these add to its contract
OS_OUT ?= $(BUILD)/os-1k

# Code for a processor without setup: no SSE, no floating point, no position independence.
OS_FLAGS := -std=gnu11 -O2 -g -m32 -march=i686 -mno-sse -mno-mmx -mno-80387 -ffreestanding -nostdlib \
	-fno-pic -fno-pie -fno-stack-protector -fno-omit-frame-pointer -fno-asynchronous-unwind-tables \
	-fcf-protection=none $(WARNINGS) -Icommon/contract -Ios-1k/lib -Ios-1k/kernel
OS_LINK := ld -m elf_i386 -z noexecstack --fatal-warnings

# ------------------------------------------------------------------ the kernel

KERNEL_NAMES := $(basename $(notdir $(wildcard os-1k/kernel/*.c os-1k/kernel/*.asm)))
LIB_NAMES    := $(basename $(notdir $(wildcard os-1k/lib/*.c)))
KERNEL_PARTS := $(addprefix $(OS_OUT)/kernel/,$(addsuffix .o,$(KERNEL_NAMES) sched)) \
	$(LIB_NAMES:%=$(OS_OUT)/lib/%.o)

# The command that compiles sched.c, to compile it elsewhere.
.PHONY: os-flags
os-flags:
	@echo '$(CC) $(OS_FLAGS) $(SCHED_FLAGS) $(call quiet-todo,$(SCHED))'

.PHONY: kernel
kernel: $(OS_OUT)/kernel.elf
	@echo $<

# KERNEL_UNIT= names a C file of unit tests, which replaces boot.c in a kernel.
.PHONY: kernel-unit
kernel-unit: $(OS_OUT)/kernel-unit.elf
	@echo $<

ifdef KERNEL_UNIT
$(OS_OUT)/kernel/kernel-unit.o: $(KERNEL_UNIT) $(OS_OUT)/flags
	@$(STEP)$(CC) $(OS_FLAGS) -MMD -MP -c $< -o $@
endif

# Linked twice, the first time only to find the addresses of its functions. The second link adds their
# table, which is after them. $(1): the kernel's name, $(2): its objects, $(3): more linker options.
define kernel-rules
$(OS_OUT)/$(1).elf: $(2) $(OS_OUT)/kernel/$(1)-symbols.o os-1k/kernel/kernel.ld
	@$$(STEP)$$(call tidy,$$@.new) $(OS_LINK) $(3) -T os-1k/kernel/kernel.ld $$(filter %.o,$$^) -o $$@.new && mv $$@.new $$@

$(OS_OUT)/kernel/$(1)-nameless.elf: $(2) $(OS_OUT)/kernel/no-symbols.o os-1k/kernel/kernel.ld
	@$$(STEP)$(OS_LINK) $(3) -T os-1k/kernel/kernel.ld $$(filter %.o,$$^) -o $$@

$(OS_OUT)/kernel/$(1)-symbols.c: $(OS_OUT)/kernel/$(1)-nameless.elf os-1k/kernel/symbols.awk
	@nm --target=elf32-i386 -n $$< | awk -f os-1k/kernel/symbols.awk > $$@
endef
$(eval $(call kernel-rules,kernel,$(KERNEL_PARTS)))
$(eval $(call kernel-rules,kernel-unit,$(filter-out %/boot.o,$(KERNEL_PARTS)) \
	$(OS_OUT)/kernel/kernel-unit.o,--wrap=trap_return --wrap=page_free))

$(OS_OUT)/kernel/no-symbols.c: os-1k/kernel/symbols.awk $(OS_OUT)/flags
	@awk -f $< /dev/null > $@

$(OS_OUT)/kernel/%.o: os-1k/kernel/%.c $(OS_OUT)/flags
	@$(STEP)$(CC) $(OS_FLAGS) -MMD -MP -c $< -o $@

$(OS_OUT)/kernel/%.o: $(OS_OUT)/kernel/%.c
	@$(STEP)$(CC) $(OS_FLAGS) -c $< -o $@

$(OS_OUT)/kernel/%.o: os-1k/kernel/%.asm $(BUILD)/abi.inc $(OS_OUT)/flags
	@$(STEP)nasm -f elf32 -g -F dwarf -I $(BUILD)/ $< -o $@

$(OS_OUT)/kernel/sched.sum: $(call solved,$(SCHED)) $(OS_OUT)/flags FORCE
	$(call keep-sum,$<,$@)

$(OS_OUT)/kernel/sched-whole.o: $(call solved,$(SCHED)) $(OS_OUT)/kernel/sched.sum $(OS_OUT)/flags
	@$(STEP)$(if $(filter %.o,$<),cp $< $@,$(CC) $(OS_FLAGS) $(SCHED_FLAGS) $(call quiet-todo,$<) -MMD -MP -c $< -o $@)

# Its contract is a section of kernel.h.
$(OS_OUT)/kernel/sched.o: $(OS_OUT)/kernel/sched-whole.o common/module.ld common/close_module.sh
	@{ sed -n '/ lab 6: sched.c /,/--- system_calls.c /p' os-1k/kernel/kernel.h | $(CONTRACT); \
	    printf '%s\n' $(SCHED_GIVES); } | sh common/close_module.sh $< $@ elf_i386

$(OS_OUT)/lib/%.o: os-1k/lib/%.c $(OS_OUT)/flags
	@$(STEP)$(CC) $(OS_FLAGS) -MMD -MP -c $< -o $@

# When the command line changes, everything is rebuilt.
$(eval $(call text-rule,$(OS_OUT)/flags,$(CC) $(OS_FLAGS) $(SCHED_FLAGS),$(addprefix $(OS_OUT)/,kernel lib user)))

# ------------------------------------------------------------------ the programs and their archive
#
# PROGRAM_DIR= names another folder of programs: the grader has its own.

PROGRAM_DIR ?= os-1k/user

# Every C file is a program, but for those of the library: the linker takes from it what a program uses.
USER_NAMES := libc line_editor
PROGRAMS   := $(patsubst $(PROGRAM_DIR)/%.c,$(OS_OUT)/user/%,\
	$(filter-out $(USER_NAMES:%=os-1k/user/%.c),$(wildcard $(PROGRAM_DIR)/*.c)))
USER_PARTS := $(OS_OUT)/user/start.o $(OS_OUT)/user/libuser.a

.PHONY: archive programs
archive: $(OS_OUT)/archive.tar
	@echo $<

programs: $(PROGRAMS)
	@echo $(OS_OUT)/user

ARCHIVED := $(PROGRAMS) $(wildcard os-1k/files/*)

$(OS_OUT)/archive.tar: $(ARCHIVED) $(OS_OUT)/archived
	@$(call tidy,$@.new) tar --create --format=ustar --owner=0 --group=0 --mtime=@0 --mode=0644 \
	    --transform 's,.*/,,' --file $@.new $(ARCHIVED) && mv $@.new $@

# Changes when a file is added or removed: one that is gone is newer than nothing.
$(eval $(call text-rule,$(OS_OUT)/archived,$(ARCHIVED)))

# The archive has the programs without their symbols, which only gdb reads.
$(PROGRAMS): $(OS_OUT)/user/%: $(OS_OUT)/user/%.elf
	@$(call tidy,$@.new) objcopy --strip-all $< $@.new && mv $@.new $@

$(PROGRAMS:%=%.elf): $(OS_OUT)/user/%.elf: $(OS_OUT)/user/%.o $(USER_PARTS) os-1k/user/program.ld
	@$(STEP)$(OS_LINK) -T os-1k/user/program.ld $(filter %.o %.a,$^) -o $@

$(OS_OUT)/user/start.o: os-1k/user/start.asm $(OS_OUT)/flags
	@$(STEP)nasm -f elf32 -g -F dwarf $< -o $@

$(OS_OUT)/user/libuser.a: $(USER_NAMES:%=$(OS_OUT)/user/%.o) $(LIB_NAMES:%=$(OS_OUT)/lib/%.o)
	@rm -f $@ && ar rcs $@ $^

$(USER_NAMES:%=$(OS_OUT)/user/%.o): $(OS_OUT)/user/%.o: os-1k/user/%.c $(OS_OUT)/flags
	@$(STEP)$(CC) $(OS_FLAGS) -MMD -MP -c $< -o $@

$(OS_OUT)/user/%.o: $(PROGRAM_DIR)/%.c $(OS_OUT)/flags
	@$(STEP)$(CC) $(OS_FLAGS) -Ios-1k/user -MMD -MP -c $< -o $@

.SECONDARY:
-include $(wildcard $(OS_OUT)/*/*.d)

# ------------------------------------------------------------------ tests on the host
#
# The parts of the kernel that run without privileged instructions, with sanitizers. Their mem- and str-
# functions are renamed, or they would replace the host's.

OS_TESTS   := $(BUILD)/os-1k-tests
PURE_PARTS := os-1k/kernel/archive.c os-1k/kernel/pages.c os-1k/kernel/queue.c $(wildcard os-1k/lib/*.c)
HOST_FLAGS := -std=gnu11 -O1 -g $(WARNINGS) -Wno-pointer-to-int-cast -Wno-int-to-pointer-cast \
	-fno-builtin -fno-sanitize-recover=all -Icommon/contract -Ios-1k/lib -Ios-1k/kernel
RENAMES    := $(foreach name,memcpy memset memcmp strlen strcmp,-D$(name)=os_$(name))
FUZZ_CC    ?= $(or $(shell command -v clang),$(shell command -v clang-14),clang)

$(OS_TESTS)/parts: os-1k/tests/parts.c $(PURE_PARTS) $(wildcard os-1k/*/*.h)
	@mkdir -p $(@D)/objects
	@for part in $(PURE_PARTS); do $(CC) $(HOST_FLAGS) -fsanitize=address,undefined $(RENAMES) \
	    -c $$part -o $(@D)/objects/$$(basename $$part .c).o || exit 1; done
	@$(CC) $(HOST_FLAGS) -fsanitize=address,undefined $< $(@D)/objects/*.o -o $@ \
	    $$(pkg-config --cflags --libs check)

$(OS_TESTS)/fuzz-archive: os-1k/tests/fuzz_archive.c os-1k/kernel/archive.c os-1k/lib/string.c
	@mkdir -p $(@D)
	@$(FUZZ_CC) $(HOST_FLAGS) $(RENAMES) -fsanitize=fuzzer,address,undefined $^ -o $@

$(OS_TESTS)/fuzz-elf: os-1k/tests/fuzz_elf.c solutions/lab6-1k-os/boot.c
	@mkdir -p $(@D)
	@$(FUZZ_CC) $(HOST_FLAGS) -fsanitize=fuzzer,address,undefined $^ -o $@

$(OS_TESTS)/fuzz-elf64: os-1k/tests/fuzz_elf64.c solutions/lab7-long-mode/long_mode.c
	@mkdir -p $(@D)
	@$(FUZZ_CC) $(HOST_FLAGS) -fsanitize=fuzzer,address,undefined $^ -o $@
