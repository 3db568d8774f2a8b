"""The figures of lab 8: the devices of a PC, and what a Linux kernel finds in memory."""

from __future__ import annotations

from grader.handouts.constants import ABI, PC
from grader.handouts.drawing import Drawing


def serial_port() -> Drawing:
    picture = Drawing(860, 400, "The serial port: bytes go through THR and the receive FIFO; four causes, "
                      "each with its enable bit, drive one interrupt line")
    picture.text(20, 24, "guest", "strong")
    picture.text(330, 24, "16550A", "strong", "middle")
    picture.text(840, 24, "outside", "strong", "end")
    picture.box(130, 40, 400, 346, "", "kvm")
    port = PC["UART_PORT"]
    for y, label, below in ((60, "THR", f"out 0x{port:x}"), (120, "RBR", f"in 0x{port:x}")):
        picture.box(150, y, 80, 44, label)
        picture.text(20, y + 27, below, "mono")
    picture.line((110, 82), (148, 82))
    picture.line((150, 142), (112, 142))
    picture.line((230, 82), (640, 82))
    picture.box(640, 60, 180, 44, "transmit", "vmm", below="to the console")
    fifo = 10
    for i in range(fifo):
        picture.box(290 + 22 * i, 124, 22, 36, "", "guest" if i < 3 else "free")
    picture.line((288, 142), (232, 142))
    picture.text(400, 178, f"receive FIFO, {PC['UART_FIFO']} bytes, or 1", "small", "middle")
    picture.line((640, 142), (512, 142))
    picture.box(640, 120, 180, 44, "receive", "vmm", below="from the keyboard's ring")
    picture.text(150, 208, "cause", "strong")
    picture.text(330, 208, "enabled in IER", "strong")
    causes = (("a byte was lost", f"bit 2: 0x{PC['IER_LINE']:02x}", PC["IIR_LINE"]),
              ("a byte is in the FIFO", f"bit 0: 0x{PC['IER_RECEIVED']:02x}", PC["IIR_RECEIVED"]),
              ("THR is empty", f"bit 1: 0x{PC['IER_TRANSMITTER']:02x}", PC["IIR_TRANSMITTER"]),
              ("a modem input changed", f"bit 3: 0x{PC['IER_MODEM']:02x}", PC["IIR_MODEM"]))
    for i, (cause, enable, number) in enumerate(causes):
        y = 220 + 38 * i
        picture.box(145, y, 160, 28, cause, words="small")
        picture.box(330, y, 90, 28, enable, "accent", "small")
        picture.box(438, y, 56, 28, "and", "plain", "small")
        picture.line((305, y + 14), (330, y + 14), arrow=False)
        picture.line((420, y + 14), (438, y + 14), arrow=False)
        picture.line((494, y + 14), (590, 291))
        picture.text(20, y + 19, f"IIR = 0x{number:02x}", "mono")
    picture.box(590, 272, 50, 38, "or", "plain", "small")
    picture.line((640, 291), (700, 291))
    picture.box(700, 272, 120, 38, f"IRQ {PC['UART_IRQ']}", "vmm")
    picture.text(700, 328, "a level, not an event", "small")
    return picture


def interrupt_controllers() -> Drawing:
    picture = Drawing(860, 410, "Two 8259A interrupt controllers: the timer and the serial port are inputs "
                      "of the master, the slave's output is another")
    master, slave, cascade = PC["PIC_MASTER"], PC["PIC_SLAVE"], PC["PIC_CASCADE"]
    for x, name, port, label in ((520, "master", master, "IRQ 0 to 7"),
                                 (120, "slave", slave, "IRQ 8 to 15")):
        picture.box(x, 40, 190, 290, "", "kvm")
        picture.text(x + 95, 30, f"{name}, ports 0x{port:x}, 0x{port + 1:x}", "strong", "middle")
        registers = (("IRR", "requested"), ("IMR", "masked"), ("ISR", "in service"))
        for i, (register, words) in enumerate(registers):
            picture.box(x + 50, 70 + 70 * i, 124, 40, register, below=words)
        picture.text(x + 112, 320, label, "small", "middle")
        for i in range(8):
            picture.text(x + 8, 72 + 30 * i, str(i), "small")
    picture.box(360, 46, 110, 34, "8254", "vmm")
    picture.line((470, 68), (518, 68))
    picture.text(478, 60, f"IRQ {PC['PIT_IRQ']}", "small")
    picture.line((310, 128), (518, 128))
    picture.text(326, 122, f"the slave's output is input {cascade}", "small")
    picture.box(360, 172, 110, 34, "serial port", "vmm")
    picture.line((470, 188), (518, 188))
    picture.text(478, 180, f"IRQ {PC['UART_IRQ']}", "small")
    picture.line((710, 100), (760, 100))
    picture.box(760, 80, 90, 40, "processor", "guest")
    picture.text(712, 92, "output", "small")
    picture.line((760, 112), (712, 112))
    picture.text(714, 128, "vector", "small")
    for row, words in enumerate((
            "A line that rises sets its bit in IRR. The output is on if a bit of IRR that is not masked "
            "comes before all bits of ISR;",
            "input 0 comes first. The processor takes the interrupt: the bit moves from IRR to ISR, and the "
            "vector is ICW2's base plus",
            "the input's number. End of interrupt (EOI) clears the bit in ISR.")):
        picture.text(20, 358 + 19 * row, words, "small")
    return picture


def linux_memory() -> Drawing:
    picture = Drawing(880, 470, "The physical memory of a Linux guest at its first instruction")
    low, kernel = PC["LOW_RAM_END"], PC["KERNEL_OFFSET"]
    parts = [(ABI["GDT_OFFSET"], "GDT", "vmm", ""),
             (ABI["DIRECTORY_OFFSET"], "PML4 and the tables below it", "vmm", ""),
             (ABI["BOOT_INFO_OFFSET"], "zero page", "vmm", "RSI: header, e820 map, where the rest is"),
             (PC["COMMAND_LINE_OFFSET"], "command line", "vmm", "hdr.cmd_line_ptr"),
             (ABI["LOAD_MIN"], "free RAM", "free", "the stack grows down from here"),
             (low, "not RAM", "none", "on a PC: video memory, firmware"),
             (kernel, "kernel, compressed", "guest", f"RIP: entry at 0x{kernel + PC['KERNEL_ENTRY_64']:x}"),
             (None, "free RAM", "free", ""),
             (0x1000000, "where it unpacks itself to", "guest", "pref_address, init_size bytes"),
             (None, "free RAM", "free", ""), (None, "initrd", "vmm", "hdr.ramdisk_image, page-aligned")]
    for i, (address, label, kind, note) in enumerate(parts):
        y = 416 - 36 * i
        picture.box(130, y, 360, 36, label, kind)
        if address is not None:
            picture.text(122, y + 36, f"0x{address:07x}", "mono", "end")
        picture.text(500, y + 22, note, "small")
    picture.text(122, 60, "end of RAM", "small", "end")
    picture.line((762, 272), (780, 272), (780, 452), (762, 452), arrow=False)
    picture.text(788, 366, "e820: RAM", "small")
    picture.line((762, 56), (780, 56), (780, 236), (762, 236), arrow=False)
    picture.text(788, 150, "e820: RAM", "small")
    return picture


def keystroke() -> Drawing:
    picture = Drawing(900, 470, "A keystroke on its way from the terminal to the shell in the guest, and its "
                      "echo back")
    lanes = ((90, "devices' thread", "vmm"), (310, "vCPU's thread", "vmm"),
             (560, "kernel in the guest", "guest"), (800, "shell in the guest", "guest"))
    for x, label, kind in lanes:
        picture.box(x - 85, 10, 170, 30, label, kind)
        picture.line((x, 40), (x, 460), arrow=False, dash=True)
    devices, vcpu, kernel, shell = (lane[0] for lane in lanes)
    steps = [(70, devices, devices, "read, ring_put"),
             (100, devices, vcpu, "KEYBOARD_VECTOR, kick"),
             (130, vcpu, vcpu, "uart_receive: ring to FIFO"),
             (160, vcpu, vcpu, "line rises: IRR bit 4"),
             (195, vcpu, kernel, "KVM_INTERRUPT 0x34; IRR to ISR"),
             (228, kernel, vcpu, "out 0x21, in 0x21, out 0x20: mask, EOI"),
             (258, kernel, vcpu, "in 0x3fa: IIR 0xc4, a byte"),
             (288, kernel, vcpu, "in 0x3fd, in 0x3f8: LSR, RBR"),
             (318, vcpu, vcpu, "FIFO empty: line falls"),
             (348, kernel, shell, "the tty wakes the reader"),
             (380, shell, kernel, "write: the echo"),
             (410, kernel, vcpu, "out 0x3f8: THR"),
             (440, vcpu, vcpu, "console_write: your terminal")]
    for y, start, end, label in steps:
        if start == end:
            picture.box(start - 88, y - 15, 176, 24)
            picture.text(start, y + 2, label, "small", "middle")
        else:
            picture.line((start, y), (end, y))
            picture.text((start + end) / 2, y - 5, label, "small", "middle")
    return picture
