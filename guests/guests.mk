# Assembles the reference guests. Included by the Makefile.

GUEST_IMAGES := $(patsubst guests/%.asm,$(BUILD)/guests/%.bin,$(wildcard guests/*.asm)) $(BUILD)/guests/kernel64.bin

.PHONY: guests
guests: $(GUEST_IMAGES)

$(BUILD)/guests/%.bin: guests/%.asm $(BUILD)/abi.inc $(wildcard guests/*.inc)
	@$(STEP)mkdir -p $(@D)
	@nasm -f bin -I $(BUILD)/ -I guests/ $< -o $@

# The kernel in C, an ELF64 file. A kernel must not use the red zone, which an interrupt overwrites.
KERNEL64_FLAGS := -std=gnu11 -O2 -g -m64 -mcmodel=kernel -mno-red-zone -mgeneral-regs-only -ffreestanding \
	-fno-pic -fno-pie -fno-stack-protector -fno-asynchronous-unwind-tables -fcf-protection=none \
	$(WARNINGS) -Icommon/contract

$(BUILD)/guests/kernel64.bin: $(wildcard guests/kernel64/*) guests/guests.mk common/contract/abi.h \
		common/contract/boot_info.h
	@$(STEP)mkdir -p $(@D)/kernel64
	@nasm -f elf64 -g -F dwarf guests/kernel64/entry.asm -o $(@D)/kernel64/entry.o
	@$(CC) $(KERNEL64_FLAGS) -c guests/kernel64/kernel.c -o $(@D)/kernel64/kernel.o
	@ld -m elf_x86_64 -z noexecstack --fatal-warnings -T guests/kernel64/kernel.ld \
	    $(@D)/kernel64/entry.o $(@D)/kernel64/kernel.o -o $@

# The constants of abi.h for nasm: each `#define NAME VALUE` as `%define NAME VALUE`.
$(BUILD)/abi.inc: common/contract/abi.h
	@mkdir -p $(@D)
	@sed -n 's/^#define \([A-Z0-9_]*\) *\([^ ]*\).*/%define \1 \2/p' $< > $@.$$$$ && mv $@.$$$$ $@
