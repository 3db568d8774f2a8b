# Assembles the reference guests. Included by the Makefile.

GUEST_IMAGES := $(patsubst guests/%.asm,$(BUILD)/guests/%.bin,$(wildcard guests/*.asm))

.PHONY: guests
guests: $(GUEST_IMAGES)

$(BUILD)/guests/%.bin: guests/%.asm $(BUILD)/abi.inc $(wildcard guests/*.inc)
	@$(STEP)mkdir -p $(@D)
	@nasm -f bin -I $(BUILD)/ -I guests/ $< -o $@

# The constants of abi.h for nasm: each `#define NAME VALUE` as `%define NAME VALUE`.
$(BUILD)/abi.inc: common/contract/abi.h
	@mkdir -p $(@D)
	@sed -n 's/^#define \([A-Z0-9_]*\) *\([^ ]*\).*/%define \1 \2/p' $< > $@.$$$$ && mv $@.$$$$ $@
