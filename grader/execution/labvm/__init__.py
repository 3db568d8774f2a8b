"""The lab VM: a real /dev/kvm on any machine.

QEMU emulates, in software, an AMD processor with SVM; a Debian kernel with kvm-amd runs in it, and the
kit's runner. It is booted once and then restored from a snapshot for each use.

    kernel.py    the kernel and its modules: where they come from
    initrd.py    the first file system: init, runner, modules
    machine.py   QEMU's command line, its monitor, the channel
    snapshot.py  the cache: keyed, locked, bounded
    pack.py      which files a program needs in there
    session.py   a person at a terminal
"""
