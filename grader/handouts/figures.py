"""The figures of the handouts, drawn from the kit's constants. `update` writes the changed ones."""

from __future__ import annotations

from collections.abc import Callable

from grader.handouts import linux_figures, structure, timeline
from grader.handouts.constants import ABI
from grader.handouts.drawing import Drawing
from grader.handouts.text import FOLDER

FIGURES = FOLDER / "figures"


def real_mode_memory() -> Drawing:
    window, count = ABI["WINDOW_BYTES"], ABI["VCPUS_MAX"]
    picture = Drawing(580, 306, "Physical memory of real-mode guests: four windows of 256 KB")
    for i in range(count):
        y = 232 - 62 * i
        picture.box(130, y, 220, 62, f"window of vCPU {i}", "guest", below=f"{window // 1024} KB")
        picture.text(120, y + 60, f"0x{window * i:05x}", "mono", "end")
    picture.text(120, 292 - 62 * count + 3, f"0x{window * count:05x}", "mono", "end")
    stack = 294 - 62 * 0xfff0 / window
    picture.line((400, stack - 8), (352, stack))
    picture.text(406, stack - 18, "SP at 0xfff0: a segment", "small")
    picture.text(406, stack - 4, "covers 64 KB", "small")
    picture.line((400, 293), (352, 293))
    picture.text(406, 297, "first instruction: offset 0", "small")
    picture.text(130, 28, "RAM above the windows: unused", "small")
    return picture


def paging_memory() -> Drawing:
    picture = Drawing(680, 400, "The physical memory of a paging guest, lowest address first")
    parts = [(0, "unused", "free"), (ABI["GDT_OFFSET"], "GDT, 6 descriptors", "vmm"),
             (ABI["TSS_OFFSET"], "TSS, 104 bytes", "vmm"), (ABI["DIRECTORY_OFFSET"], "page directory", "vmm"),
             (ABI["TABLES_OFFSET"], "page tables, as needed", "vmm"),
             (ABI["BOOT_INFO_OFFSET"], "boot information", "vmm"),
             (ABI["LOAD_MIN"], "free; the stack grows down", "free"),
             (ABI["LOAD_DEFAULT"], "the guest's image", "guest")]
    for i, (address, label, kind) in enumerate(parts):
        y = 340 - 44 * i
        picture.box(130, y, 270, 44, label, kind)
        picture.text(120, y + 42, f"0x{address:06x}", "mono", "end")
    picture.text(120, 34, f"0x{ABI['SLOT_BYTES']:06x}", "mono", "end")
    picture.text(410, 34, "end of the slot if guests share the VM", "small")
    picture.line((412, 120), (412, 340), arrow=False)
    picture.text(420, 226, "written by the VMM", "small")
    picture.text(420, 242, "before the first entry", "small")
    return picture


def exit_loop() -> Drawing:
    picture = Drawing(680, 330, "The exit loop between VMM, KVM and guest")
    for x, label, kind in ((10, "VMM, your program", "vmm"), (240, "KVM, in the kernel", "kvm"),
                           (470, "guest, on the processor", "guest")):
        picture.box(x, 10, 200, 310, "", kind)
        picture.text(x + 100, 32, label, "strong", "middle")
    picture.box(30, 55, 160, 40, "before entry", below="stop? interrupt?")
    picture.line((110, 95), (110, 120))
    picture.box(30, 120, 160, 36, "ioctl KVM_RUN", words="mono")
    picture.line((190, 138), (260, 138))
    picture.box(260, 120, 160, 36, "enter the guest")
    picture.line((420, 138), (490, 138))
    picture.box(490, 120, 160, 36, "instructions run")
    picture.line((570, 156), (570, 200))
    picture.text(577, 183, "exit", "small")
    picture.box(490, 200, 160, 36, "out, hlt, ...", words="mono")
    picture.line((490, 218), (420, 218))
    picture.box(260, 200, 160, 36, "handled in KVM?")
    picture.line((340, 200), (340, 156))
    picture.text(347, 183, "yes: re-enter", "small")
    picture.line((260, 218), (190, 218))
    picture.text(225, 212, "no", "small", "middle")
    picture.box(30, 200, 160, 36, "exit_reason?", words="mono")
    picture.line((110, 236), (110, 262))
    picture.box(30, 262, 160, 36, "its handler")
    picture.line((30, 280), (18, 280), (18, 75), (30, 75))
    picture.line((190, 280), (232, 280))
    picture.text(196, 297, "end", "small")
    return picture


def interrupt_life() -> Drawing:
    picture = Drawing(850, 420, "A timer interrupt: raised by the devices' thread, injected by "
                      "the vCPU's own thread when the window opens")
    lanes = ((97, "devices' thread", "vmm"), (305, "vCPU's thread", "vmm"), (550, "KVM", "kvm"),
             (750, "guest", "guest"))
    for x, label, kind in lanes:
        picture.box(x - 80, 10, 160, 30, label, kind)
        picture.line((x, 40), (x, 410), arrow=False, dash=True)
    devices, vcpu, kvm, guest = (lane[0] for lane in lanes)
    steps = [(70, vcpu, guest, "KVM_RUN: the guest runs, IF = 0"),
             (100, devices, devices, "timer expires; pending |= 1"),
             (135, devices, vcpu, "kick: immediate_exit, signal"),
             (165, guest, vcpu, "KVM_RUN returns EINTR"),
             (200, vcpu, kvm, "IF = 0: request_interrupt_window"),
             (230, vcpu, guest, "KVM_RUN"),
             (262, guest, guest, "sti, one more instruction"),
             (295, kvm, vcpu, "KVM_EXIT_IRQ_WINDOW_OPEN"),
             (328, vcpu, kvm, "KVM_INTERRUPT 0x20; pending = 0"),
             (358, vcpu, guest, "KVM_RUN"),
             (390, guest, guest, "handler of vector 0x20")]
    for y, start, end, label in steps:
        if start == end:
            picture.box(start - 92 if start == guest else 5, y - 14, 182, 22)
            picture.text(start - 1, y + 2, label, "small", "middle")
        else:
            picture.line((start, y), (end, y))
            middle = (start + end) / 2 if abs(start - end) < 250 else (vcpu + kvm) / 2
            picture.text(middle, y - 5, label, "small", "middle")
    return picture


def two_mappings() -> Drawing:
    high = ABI["HIGHER_HALF"]
    picture = Drawing(640, 330, "Two linear addresses, one byte of memory: low memory mapped at 0 and at "
                      "0x80000000")
    picture.text(150, 24, "linear addresses", "strong", "middle")
    picture.text(500, 24, "physical memory", "strong", "middle")
    picture.box(80, 40, 140, 60, "not mapped", "none")
    picture.box(80, 100, 140, 60, "mapped", "guest")
    picture.box(80, 160, 140, 90, "not mapped", "none")
    picture.box(80, 250, 140, 60, "mapped", "guest")
    for y, address in ((104, high + 0x1000000), (160, high), (254, 0x1000000), (310, 0)):
        picture.text(72, y + 2, f"{address:08x}", "mono", "end")
    picture.box(430, 250, 140, 60, "RAM", "kvm", below="16 MB")
    picture.text(578, 312, "0", "mono")
    picture.text(578, 256, "1000000", "mono")
    picture.line((220, 280), (430, 280))
    picture.text(325, 273, "directory[0] to [3]", "small", "middle")
    picture.line((220, 130), (430, 268))
    picture.text(345, 165, f"directory[{high >> 22}] to [{(high >> 22) + 3}]", "small", "middle")
    picture.text(300, 60, "A higher-half kernel runs as soon as paging is on.", "small")
    picture.text(300, 78, "The low mapping lets it reach physical addresses,", "small")
    picture.text(300, 96, "until it has tables of its own.", "small")
    return picture


def page_walk() -> Drawing:
    address = 0x80403123
    directory, index, offset = address >> 22, address >> 12 & 1023, address & 4095
    picture = Drawing(720, 430, f"The page walk of linear address 0x{address:08x}, bit by bit")
    picture.text(20, 24, f"linear address 0x{address:08x}", "strong")
    bits = f"{address:032b}"
    left = 20.0
    for start, end, label, kind in ((0, 10, f"directory index = {directory}", "guest"),
                                    (10, 20, f"table index = {index}", "kvm"),
                                    (20, 32, f"offset = 0x{offset:03x}", "vmm")):
        width = (end - start) * 21.0
        picture.box(left, 36, width, 30, " ".join(bits[start:end]), kind, "mono")
        picture.text(left + width / 2, 84, label, "small", "middle")
        picture.text(left + 2, 100, f"bit {31 - start}", "small")
        picture.text(left + width - 2, 100, f"{32 - end}", "small", "end")
        left += width
    hit = 2
    for x, title, rows, kind in (
            (20, "page directory", ["0", "...", str(directory), "...", "1023"], "guest"),
            (270, "page table", ["0", "...", str(index), "...", "1023"], "kvm"),
            (520, "page, 4096 bytes", ["0x000", "...", f"0x{offset:03x}", "...", "0xfff"], "vmm")):
        picture.text(x + 90, 160, title, "strong", "middle")
        for i, row in enumerate(rows):
            picture.box(x + 50, 172 + 34 * i, 120, 34, "", kind if i == hit else "plain")
            picture.text(x + 44, 194 + 34 * i, row, "small", "end")
    picture.text(130, 262, "00003007", "mono", "middle")
    picture.text(380, 262, "00403003", "mono", "middle")
    picture.text(630, 262, "the byte", "", "middle")
    picture.line((190, 257), (244, 257), (244, 172), (318, 172))
    picture.line((440, 257), (494, 257), (494, 172), (568, 172))
    picture.text(20, 130, "CR3 = 00002000", "mono")
    picture.line((26, 136), (26, 189), (50, 189))
    picture.text(20, 366, "An entry: 31 ... 12 is the frame, the physical address of the next table or of "
                 "the page.", "small")
    picture.text(20, 386, "Bit 0 P present · bit 1 R/W writable · bit 2 U/S user · bit 7 PS: this "
                 "directory entry maps 4 MB itself.", "small")
    picture.text(20, 406, "Physical address = frame of the table entry + offset = 0x00403000 + 0x123 = "
                 "0x00403123.", "small")
    return picture


def long_walk() -> Drawing:
    address = ABI["HIGHER_HALF_64"] + 0x403123
    indices = [address >> shift & 511 for shift in (39, 30, 21, 12)]
    picture = Drawing(860, 430, f"The page walk of linear address 0x{address:016x} through four levels")
    picture.text(20, 24, f"linear address 0x{address:016x}", "strong")
    names = ["PML4", "PDPT", "PD", "table"]
    kinds = ["guest", "kvm", "guest", "kvm"]
    left = 20.0
    fields = [("copies of bit 47", "bits 63-48", 140, "free"),
              *((f"{name} index = {index}", f"{47 - 9 * i}-{39 - 9 * i}", 138, kind)
                for i, (name, index, kind) in enumerate(zip(names, indices, kinds))),
              (f"offset = 0x{address & 4095:03x}", "11-0", 120, "vmm")]
    for label, bits, width, kind in fields:
        picture.box(left, 36, width, 30, label, kind, "small")
        picture.text(left + width / 2, 84, bits, "small", "middle")
        left += width
    entries = ["00005007", "00006007", "00007007", "00403003"]
    for i, (name, index, kind, entry) in enumerate(zip(["PML4", "PDPT", "PD", "page table"], indices, kinds,
                                                       entries)):
        x = 44 + 165 * i
        picture.text(x + 55, 150, name, "strong", "middle")
        for row, label in enumerate(["0", "...", str(index), "...", "511"]):
            picture.box(x, 162 + 34 * row, 110, 34, entry if row == 2 else "", kind if row == 2 else "plain",
                        "mono")
            picture.text(x - 5, 184 + 34 * row, label, "small", "end")
        end = x + 165 if i < 3 else x + 160
        picture.line((x + 110, 247), (x + 122, 247), (x + 122, 168), (end - 2, 168))
    picture.box(704, 162, 120, 170, "the page", "vmm", below="4 KB at 0x403000")
    picture.text(20, 118, "CR3 = 00002000", "mono")
    picture.line((28, 124), (28, 168), (42, 168))
    for row, words in enumerate((
            "An entry has 8 bytes: bits 51 ... 12 are the frame, the physical address of the next table or "
            "of the page.",
            "Bit 0 P present · bit 1 R/W writable · bit 2 U/S user · bit 7 PS: this PDPT entry maps 1 GB, "
            "this PD entry 2 MB · bit 63 no execute.",
            "Physical address = frame of the last entry + offset = 0x00403000 + 0x123 = 0x00403123.")):
        picture.text(20, 366 + 20 * row, words, "small")
    return picture


def long_start() -> Drawing:
    high = ABI["HIGHER_HALF_64"]
    picture = Drawing(800, 430, "The start state of a 64-bit guest: its registers, and where in its memory "
                      "each of them leads")
    parts = [(ABI["GDT_OFFSET"], "GDT, 7 entries", "vmm"), (ABI["TSS_OFFSET"], "TSS, 104 bytes", "vmm"),
             (ABI["DIRECTORY_OFFSET"], "PML4", "vmm"), (ABI["TABLES_OFFSET"], "PDPT, PD, page tables", "vmm"),
             (ABI["BOOT_INFO_OFFSET"], "boot information", "vmm"),
             (ABI["BOOT_INFO_OFFSET"] + ABI["PAGE_BYTES"], "free; the stack grows down", "free"),
             (ABI["LOAD_MIN"], "free", "free"), (ABI["LOAD_DEFAULT"], "the kernel's segments", "guest")]
    picture.text(490, 24, "the guest's memory", "strong", "middle")
    picture.text(160, 24, "registers", "strong", "middle")
    tops = {}
    for i, (address, label, kind) in enumerate(parts):
        y = 378 - 42 * (i + 1)
        tops[address] = y + 42
        picture.box(360, y, 260, 42, label, kind)
        picture.text(630, y + 40, f"0x{address:06x}", "mono")
    for i, (name, value, target) in enumerate((
            ("RIP", f"{high + ABI['LOAD_DEFAULT']:x}", ABI["LOAD_DEFAULT"]),
            ("RSP", f"{high + ABI['LOAD_MIN']:x}", ABI["LOAD_MIN"]),
            ("RDI", f"{ABI['BOOT_INFO_OFFSET']:x}", ABI["BOOT_INFO_OFFSET"]),
            ("CR3", f"{ABI['DIRECTORY_OFFSET']:x}", ABI["DIRECTORY_OFFSET"]),
            ("TR", f"{high + ABI['TSS_OFFSET']:x}", ABI["TSS_OFFSET"]),
            ("GDTR", f"{high + ABI['GDT_OFFSET']:x}", ABI["GDT_OFFSET"]))):
        y = 58 + 58 * i
        picture.text(66, y + 20, name, "strong", "end")
        picture.box(76, y, 180, 30, value, "kvm", "mono")
        picture.line((256, y + 15), (358, tops[target] - (0 if name == "RSP" else 5)))
    picture.text(76, 412, "CS: L = 1, D/B = 0 · CR0: PG, WP, NE, ET, PE · CR4: PAE, OSFXSR, OSXMMEXCPT · "
                 "EFER: LMA, LME, NXE, SCE", "small")
    return picture


def os_address_space() -> Drawing:
    high = ABI["HIGHER_HALF"]
    picture = Drawing(700, 400, "The address spaces of two processes of the 1K OS: the user halves "
                      "differ, the kernel's half is the same")
    for x, name in ((110, "process 2"), (440, "process 3")):
        picture.text(x + 90, 24, name, "strong", "middle")
        picture.box(x, 36, 180, 130, "", "kvm")
        picture.text(x + 90, 66, "kernel: code, data,", "", "middle")
        picture.text(x + 90, 86, "all physical memory", "", "middle")
        picture.text(x + 90, 112, "ring 0 only", "small", "middle")
        picture.box(x, 166, 180, 44, "user stack", "guest", below="ring 3, writable")
        picture.box(x, 210, 180, 40, "not mapped", "none")
        picture.box(x, 250, 180, 44, "data", "guest", below="ring 3, writable")
        picture.box(x, 294, 180, 44, "code", "guest", below="ring 3, read-only")
        picture.box(x, 338, 180, 40, "not mapped", "none", below="null pointers fault")
    picture.text(102, 170, f"{high:08x}", "mono", "end")
    picture.text(102, 44, "ffffffff", "mono", "end")
    picture.text(102, 378, "00000000", "mono", "end")
    picture.line((292, 100), (438, 100))
    picture.line((438, 100), (292, 100))
    picture.text(365, 90, "the same pages", "small", "middle")
    picture.text(365, 274, "different", "small", "middle")
    picture.text(365, 290, "pages", "small", "middle")
    return picture


def context_switch() -> Drawing:
    picture = Drawing(740, 430, "Two kernel stacks at a context switch: ESP moves from one to the other")
    rows = [("ss, esp, eflags, cs, eip", "accent", "by the processor"), ("error code, vector", "plain", ""),
            ("eax ... edi", "plain", "trap_entries"), ("ds, es, fs, gs", "plain", ""),
            ("calls of C functions", "free", "trap, schedule"), ("ebp", "vmm", "context_switch"),
            ("return address", "vmm", "")]
    for x, title in ((60, "process A stops"), (440, "process B continues")):
        picture.text(x + 110, 14, title, "strong", "middle")
        for i, (label, kind, _) in enumerate(rows):
            picture.box(x, 40 + 44 * i, 220, 44, label, kind)
        picture.box(x, 40 + 44 * len(rows), 220, 40, "free", "none")
    for i, (_, _, who) in enumerate(rows):
        if who:
            picture.text(360, 66 + 44 * i, who, "small", "middle")
    picture.text(56, 34, "kernel_stack + 4096", "small")
    picture.text(170, 405, "1  push, then A->stack = ESP", "mono", "middle")
    picture.text(550, 405, "2  ESP = B->stack, then ret", "mono", "middle")
    picture.line((282, 344), (438, 344))
    picture.text(360, 337, "ESP", "mono", "middle")
    return picture


def lost_kick() -> Drawing:
    picture = Drawing(720, 300, "Why a kick needs immediate_exit: the signal comes just before KVM_RUN")
    for x, title, safe in ((10, "signal only: lost", False), (370, "with immediate_exit: seen", True)):
        picture.text(x + 170, 24, title, "strong", "middle")
        picture.box(x, 36, 160, 28, "vCPU's thread", "vmm")
        picture.box(x + 180, 36, 160, 28, "another thread", "vmm")
        picture.line((x + 80, 64), (x + 80, 290), arrow=False, dash=True)
        picture.line((x + 260, 64), (x + 260, 290), arrow=False, dash=True)
        picture.box(x + 5, 80, 150, 26, "stop_signal is 0")
        picture.box(x + 185, 115, 150, 26, "stop_signal = 2")
        if safe:
            picture.box(x + 185, 149, 150, 26, "immediate_exit = 1", "kvm")
        picture.box(x + 185, 183, 150, 26, "pthread_kill")
        picture.line((x + 185, 196), (x + 82, 196))
        picture.text(x + 85, 190, "handler runs", "small")
        picture.box(x + 5, 215, 150, 26, "KVM_RUN", words="mono")
        picture.box(x + 5, 255, 150, 26, "EINTR at once" if safe else "runs forever",
                    "kvm" if safe else "accent")
    return picture


PICTURES: dict[str, Callable[[], Drawing]] = {
    "real-mode-memory": real_mode_memory,
    "paging-memory": paging_memory,
    "exit-loop": exit_loop,
    "interrupt-life": interrupt_life,
    "two-mappings": two_mappings,
    "page-walk": page_walk,
    "long-walk": long_walk,
    "long-start": long_start,
    "os-address-space": os_address_space,
    "context-switch": context_switch,
    "lost-kick": lost_kick,
    "serial-port": linux_figures.serial_port,
    "interrupt-controllers": linux_figures.interrupt_controllers,
    "linux-memory": linux_figures.linux_memory,
    "keystroke": linux_figures.keystroke,
    "timeline": timeline.picture,
    "grader": structure.layers,
}


def outdated() -> list[str]:
    """The figures that no longer match the kit's numbers."""
    return [name for name, make in PICTURES.items()
            if not (path := FIGURES / f"{name}.svg").exists() or path.read_text() != make().svg()]


def update() -> list[str]:
    """Writes the changed figures; returns their names."""
    names = outdated()
    FIGURES.mkdir(exist_ok=True)
    for name in names:
        (FIGURES / f"{name}.svg").write_text(PICTURES[name]().svg())
    return names
