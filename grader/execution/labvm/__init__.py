"""The lab VM: a real /dev/kvm on any machine.

QEMU emulates, in software, an AMD processor with SVM. A Debian kernel with kvm-amd and the kit's runner
run in it. It is booted once, and each use restores it from a snapshot.

    kernel.py    the kernel and its modules: where they come from
    initrd.py    the initial file system: init, runner, modules
    machine.py   QEMU's command line, its monitor, the channel
    confine.py   the rights that QEMU runs with
    snapshot.py  the cache: keyed, locked, bounded
    pack.py      which files a program needs in the VM
    session.py   a person at a terminal
"""
