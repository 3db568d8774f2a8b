/*
 * pc.h - the devices of a PC: their ports and the bits of their registers. The names are those of
 * the data sheets: PC16550D (serial port), 8259A (interrupts), 82C54 (timer).
 */
#pragma once

#define PORTS 0x10000 /* of the I/O space */

/* ------------------------------------------------------------------ the serial port */

#define UART_PORT  0x3f8 /* the first of UART_PORTS */
#define UART_PORTS 8
#define UART_IRQ   4
#define UART_FIFO  16 /* bytes in the receive FIFO, if it is enabled */

/* Registers, counted from UART_PORT. */
#define UART_RBR 0 /* a write: THR; with LCR_DLAB: DLL */
#define UART_IER 1 /* with LCR_DLAB: DLM */
#define UART_IIR 2 /* a write: FCR */
#define UART_LCR 3
#define UART_MCR 4
#define UART_LSR 5
#define UART_MSR 6
#define UART_SCR 7

#define IER_RECEIVED    0x01
#define IER_TRANSMITTER 0x02
#define IER_LINE        0x04
#define IER_MODEM       0x08
#define IER_BITS        0x0f
#define IIR_LINE        0x06 /* the causes, that of the highest priority first */
#define IIR_RECEIVED    0x04
#define IIR_TRANSMITTER 0x02
#define IIR_MODEM       0x00
#define IIR_NONE        0x01
#define IIR_FIFOS       0xc0 /* with FCR_ENABLE */
#define FCR_ENABLE      0x01
#define FCR_CLEAR       0x02 /* of the receive FIFO */
#define LCR_DLAB        0x80
#define MCR_DTR         0x01
#define MCR_RTS         0x02
#define MCR_OUT1        0x04
#define MCR_OUT2        0x08
#define MCR_LOOPBACK    0x10
#define LSR_RECEIVED    0x01
#define LSR_OVERRUN     0x02
#define LSR_EMPTY       0x60 /* THR, and the transmitter */
#define MSR_CTS         0x10 /* bits 3 to 0: which of bits 7 to 4 have changed; RI: only if it fell */
#define MSR_DSR         0x20
#define MSR_RI          0x40
#define MSR_DCD         0x80

/* ------------------------------------------------------------------ the interrupt controllers */

#define PIC_MASTER  0x20 /* and the next port, like the slave */
#define PIC_SLAVE   0xa0
#define PIC_CASCADE 2 /* the master's input that is the slave's output */

/* In a write of the even port; without ICW1 and OCW3 it is OCW2. */
#define ICW1           0x10
#define ICW1_ICW4      0x01 /* ICW4 will be written, too */
#define OCW3           0x08
#define OCW3_READ      0x02
#define OCW3_ISR       0x01 /* with OCW3_READ: the port reads ISR from now on, else IRR */
#define OCW2_EOI       0x20
#define OCW2_SPECIFIC  0x40 /* with OCW2_EOI: of the input in bits 2 to 0 */
#define ICW2_BASE      0xf8
#define ICW4_AUTOMATIC 0x02

/* ------------------------------------------------------------------ the timer */

#define PIT_PORT    0x40 /* of counter 0, the first of PIT_PORTS */
#define PIT_PORTS   4
#define PIT_CONTROL 0x43
#define PIT_GATE    0x61 /* the PC's port for counter 2's gate and output */
#define PIT_IRQ     0    /* counter 0's output */
#define PIT_HZ      1193182

#define PERIODIC 0x2 /* of a mode: 2 and 3 are, 0 and 4 are not */

#define ACCESS_LATCH 0 /* bits 5 and 4 of a control word */
#define ACCESS_LOW   1
#define ACCESS_HIGH  2
#define ACCESS_BOTH  3 /* the low byte, then the high one */
#define GATE_OPEN    0x01
#define GATE_BITS    0x03 /* the gate, and the speaker */
#define GATE_OUTPUT  0x20

#define NS_PER_SECOND 1000000000

/* ------------------------------------------------------------------ the rest */

#define RTC_PORT       0x70 /* the clock: an index, and at the next port the register */
#define KEYBOARD_PORT  0x64 /* the keyboard controller's status; a write: a command */
#define KEYBOARD_FULL  0x01 /* of the status: the output buffer has a byte */
#define KEYBOARD_RESET 0xfe /* a command: resets the PC */

#define MSR_MISC_ENABLE          0x1a0 /* SDM vol. 4, table 2-2 */
#define MISC_ENABLE_FAST_STRINGS 0x1

/* ------------------------------------------------------------------ Linux's boot protocol */

/* What <asm/bootparam.h> has no names for: Documentation/arch/x86/boot.rst of the kernel. */
#define BOOT_FLAG         0xaa55
#define HEADER_MAGIC      0x53726448 /* "HdrS" */
#define HEADER_END        0x202      /* the header ends at this plus the byte before */
#define BOOT_VERSION_MIN  0x20c      /* 2.12: xloadflags */
#define SECTOR_BYTES      512        /* setup_sects counts these */
#define PARAGRAPH_BYTES   16         /* syssize counts these */
#define LOADER_UNDEFINED  0xff
#define VIDEO_MODE_NORMAL 0xffff
#define E820_RAM          1
